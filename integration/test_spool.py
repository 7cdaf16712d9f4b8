"""The spool on real brokers: killed, restarted, blocked; nothing accepted is lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pika
import pytest
from kafka.admin import KafkaAdminClient, NewTopic

import shield
from integration.queues import Queues
from integration.reading import read
from shield.plugins.actions.spool.snapshot import entries_in
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher
from tests.eventually import eventually

SOAK = bool(os.environ.get("SHIELD_SOAK"))
KILLS = 200 if SOAK else 20
KILLS_RABBITMQ = 50 if SOAK else 5
LONGEST_LIFE_S = 0.8


def spooling(folder: Path, rule: dict[str, Any], **more: Any) -> shield.Shield:
    """A Shield whose one rule spools what is over the limit."""
    chain = [{"spool": {"size": "64MiB", **more}}, "raise"]
    rules = [{"name": "orders", "match": "*", **rule, "over_limit": chain}]
    return shield.Shield({"shield": {"producer": "p", "spool_dir": str(folder)}, "rules": rules})


CLOSED = {"quota": {"rate": "1/d", "burst": 1}}
"""Admits one message, and then nothing."""
OPEN = {"in_flight": {"messages": 1000}}


# --- kill -9 ------------------------------------------------------------------------------------


class Nursery:
    """Gives life to senders, one after another."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration.spool_nursery", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, kind: str) -> int:
        """Begin a life; return its process id."""
        print(kind, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def until_ended(self) -> None:
        assert self._process.stdout.readline() == "ended\n"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Callable[[str, str], Nursery]]:
    """Makes a nursery for a broker's address and a destination on it."""
    made: list[Nursery] = []

    def make(address: str, destination: str) -> Nursery:
        made.append(Nursery(address, destination, str(tmp_path)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def lives_and_deaths(nursery: Nursery, kills: int, folder: Path) -> None:
    """Have so many lives end by SIGKILL at random moments, and one after them bring all back.

    The first one ends when something was accepted: how long that takes, the others live about.
    """
    begun = time.monotonic()
    for number in range(kills):
        life = nursery.begin("endless")
        if number == 0:
            eventually((folder / "accepted").exists)
            longest_s = LONGEST_LIFE_S + 1.5 * (time.monotonic() - begun)
        time.sleep(random.uniform(0, longest_s))
        os.kill(life, signal.SIGKILL)
        nursery.until_ended()
    nursery.begin("to the end")
    nursery.until_ended()


def check(folder: Path, kills: int, arrived: list[tuple[bytes, str | bytes | None]]) -> None:
    """All that was accepted is among these bodies and ids, and what is there twice has one id."""
    accepted = set((folder / "accepted").read_bytes().splitlines())
    ids = defaultdict(list)
    for body, message_id in arrived:
        ids[body].append(message_id)
    assert len(accepted) > kills
    assert accepted <= set(ids)
    twice = {body: found for body, found in ids.items() if len(found) > 1}
    assert all(len(set(found)) == 1 and found[0] for found in twice.values())
    spooled = sum(found[0] is not None for found in ids.values())
    assert spooled > kills
    print(
        f"{kills} kills: {len(accepted)} accepted, {len(ids)} arrived, {spooled} through the "
        f"spool, {len(twice)} more than once"
    )


@pytest.mark.soak
@pytest.mark.timeout(120 + KILLS * 10)
def test_what_was_accepted_survives_kill_9_at_any_moment(kafka, topic, nursery, tmp_path):
    """Everything accepted arrives, and what arrives twice has the same id."""
    lives_and_deaths(nursery(kafka.address, topic), KILLS, tmp_path)
    records = read(kafka.address, topic)
    ids = [dict(record.headers).get("shield-message-id") for record in records]
    check(tmp_path, KILLS, [(r.value, its) for r, its in zip(records, ids, strict=True)])


@pytest.mark.soak
@pytest.mark.timeout(120 + KILLS_RABBITMQ * 10)
def test_what_rabbitmq_was_to_have_survives_kill_9_at_any_moment(rabbitmq, nursery, tmp_path):
    """The same through a publisher, whose every message is confirmed."""
    with Queues(rabbitmq.address) as queues:
        queue = queues.queue()
        lives_and_deaths(nursery(rabbitmq.address, queue), KILLS_RABBITMQ, tmp_path)
        stored = queues.take(queue)
    ids = [(each.properties.headers or {}).get("shield-message-id") for each in stored]
    check(tmp_path, KILLS_RABBITMQ, [(m.body, its) for m, its in zip(stored, ids, strict=True)])


# --- byte for byte ------------------------------------------------------------------------------


def test_a_kafka_record_arrives_as_it_would_have(kafka, topic, tmp_path):
    """Key, value, headers, timestamp and partition; ours are beside them: an id and a count."""
    headers = [("a", b"\xff\x00"), ("a", b""), ("\N{SNOWMAN}", b"twice")]
    sends = [
        {"value": b"\x00\xff" * 10, "key": b"\xfe", "headers": headers, "timestamp_ms": 1234567890},
        {"value": None, "key": b"tombstone", "partition": 3},
        {"value": b"", "key": None},
    ]
    producer = KafkaProducer(bootstrap_servers=kafka.address, shield=spooling(tmp_path, CLOSED))
    producer.send(topic, b"admitted").get(60)
    for send in sends:
        future = producer.send(topic, **send)
        assert future.get(60).offset == -1
        assert shield.fate(future) == "spooled"
    producer.close()
    own = spooling(tmp_path, OPEN)
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own):
        eventually(lambda: own.ledger().delivered == 3)
    found = {(r.key, r.value): r for r in read(kafka.address, topic)}
    for send in sends:
        record = found[send["key"], send["value"]]
        ours = [name for name, _ in record.headers if name.startswith("shield-")]
        assert ours == ["shield-attempt", "shield-message-id"]
        assert record.headers[: -len(ours)] == send.get("headers", [])
        assert record.timestamp == send.get("timestamp_ms", record.timestamp)
        assert record.partition == send.get("partition", record.partition)


def test_a_rabbitmq_message_arrives_as_it_would_have(rabbitmq, tmp_path):
    """Body, routing and all properties, whatever the types of its headers."""
    with Queues(rabbitmq.address) as queues:
        queue = queues.queue(queues.exchange("fanout"))
        exchange = queues.exchange("topic")
        queues.channel.queue_bind(queue, exchange, "a.*")
        properties = pika.BasicProperties(
            content_type="application/json",
            headers={"n": 5, "t": True, "d": {"x": [1, "y"]}, "s": "text"},
            delivery_mode=2,
            priority=3,
            correlation_id="c",
            expiration="60000",
            timestamp=1234567890,
            message_id="m",
        )
        publisher = Publisher(rabbitmq.address, shield=spooling(tmp_path, CLOSED))
        publisher.publish(exchange, "a.b", b"admitted").result(60)
        future = publisher.publish(exchange, "a.b", b"\xff\x00", properties)
        assert future.result(60) is None
        assert shield.fate(future) == "spooled"
        publisher.close()
        own = spooling(tmp_path, OPEN)
        with Publisher(rabbitmq.address, shield=own):
            eventually(lambda: own.ledger().delivered == 1)
        came = queues.take(queue)[-1]
        assert came.body == b"\xff\x00"
        headers = dict(came.properties.headers)
        assert headers.pop("shield-attempt") == "1"
        assert len(headers.pop("shield-message-id")) == 36
        came.properties.headers = headers
        left_ms = int(came.properties.expiration)
        assert 0 < left_ms < 60_000  # its age counts from when it was first sent
        came.properties.expiration = properties.expiration
        assert came.properties == properties


# --- what can never be delivered ----------------------------------------------------------------


def test_what_is_too_large_for_a_later_client_alone_arrives(kafka, topic, tmp_path):
    """Whether a message that was accepted is too large, the broker says."""
    own = spooling(tmp_path, CLOSED)
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own) as producer:
        producer.send(topic, b"admitted").get(60)
        producer.send(topic, bytes(100_000)).get(60)
        producer.send(topic, b"small").get(60)
    own = spooling(tmp_path, OPEN, max_attempts=2)
    small = {"bootstrap_servers": kafka.address, "max_request_size": 50_000}
    with KafkaProducer(**small, shield=own):
        eventually(lambda: own.ledger().delivered == 2)
    assert own.ledger().spooled == 0
    values = {record.value for record in read(kafka.address, topic)}
    assert values == {b"admitted", bytes(100_000), b"small"}


def test_what_kafka_itself_will_never_take_is_parked_and_the_rest_goes(kafka, topic, tmp_path):
    """A message that the client lets through and the topic refuses; those of its key go on."""
    small = f"{topic}-small"
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        admin.create_topics([NewTopic(small, 1, 1, topic_configs={"max.message.bytes": "20000"})])
    own = spooling(tmp_path, CLOSED)
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own) as producer:
        producer.send(small, b"admitted").get(60)
        for body in (b"good", bytes(50_000), b"good, too"):
            producer.send(small, body, key=b"k").get(60)
    own = spooling(tmp_path, OPEN, max_attempts=2)
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own):
        eventually(lambda: own.ledger().delivered == 2)
        file = tmp_path / "p+orders.spool"
        eventually(lambda: [entry.is_parked for entry in entries_in(file)] == [True])
    assert own.ledger().spooled == 1
    assert own.ledger().balanced
    values = [record.value for record in read(kafka.address, small)]
    assert values == [b"admitted", b"good", b"good, too"]


def test_what_rabbitmq_will_never_take_is_parked_and_the_rest_goes(rabbitmq, tmp_path):
    """A message that no queue takes, and one whose exchange is gone."""
    with Queues(rabbitmq.address) as queues:
        queue, unbound = queues.queue(), queues.exchange()
        own = spooling(tmp_path, CLOSED)
        with Publisher(rabbitmq.address, shield=own) as publisher:
            publisher.publish("", queue, b"admitted").result(60)
            publisher.publish(unbound, "nowhere", b"unroutable").result(60)
            publisher.publish("gone", "key", b"no exchange").result(60)
            publisher.publish("", queue, b"good").result(60)
        own = spooling(tmp_path, OPEN, max_attempts=2)
        with Publisher(rabbitmq.address, shield=own):
            eventually(lambda: own.ledger().delivered == 1)
            file = tmp_path / "p+orders.spool"
            eventually(lambda: [entry.is_parked for entry in entries_in(file)] == [True, True])
        assert own.ledger().spooled == 2
        assert queues.bodies(queue) == [b"admitted", b"good"]


# --- an alarm -----------------------------------------------------------------------------------


def test_an_alarm_that_is_over_does_not_come_back_through_our_own_burst(private_rabbitmq, tmp_path):
    """All that was spooled while the broker was blocked arrives; it was blocked once."""
    broker = private_rabbitmq()
    chain = [{"spool": {"size": "64MiB", "durability": "os"}}, "raise"]
    rule = {
        "name": "orders",
        "match": "*",
        "blocked": "over_limit",
        "in_flight": {"messages": 200},
        "over_limit": chain,
    }
    own = shield.Shield({"shield": {"producer": "p", "spool_dir": str(tmp_path)}, "rules": [rule]})
    with Queues(broker.address) as queues, Publisher(broker.address, shield=own) as publisher:
        queue = queues.queue()
        publisher.publish("", queue, b"before").result(60)
        broker.ctl("set_vm_memory_high_watermark", "0.00001")
        publisher.publish("", queue, b"into the alarm")
        eventually(lambda: publisher.blocked)
        sent = [b"%d " % number + bytes(1000) for number in range(5000)]
        for future in [publisher.publish("", queue, body) for body in sent]:
            future.result(60)
        assert own.ledger().spooled == len(sent)
        broker.ctl("set_vm_memory_high_watermark", "0.4")
        blocked_again = 0
        eventually(lambda: not publisher.blocked)
        while own.ledger().spooled or own.ledger().in_flight:
            blocked_again += publisher.blocked
            time.sleep(0.01)
        assert not blocked_again
        eventually(lambda: queues.depth(queue) == len(sent) + 2)
        assert set(sent) <= set(queues.bodies(queue))
    assert own.ledger().balanced


# --- a disk -------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB; needs root, and so is proven with RLIMIT_FSIZE in tests/ as well."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs; tests/plugins/spool has a full disk, too")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_and_one_that_is_read_only(kafka, topic, disk):
    """What was accepted arrives; what was not takes the chain's next action; each is counted."""
    own = spooling(disk, CLOSED)
    fates = Counter()
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own) as producer:
        producer.send(topic, b"admitted").get(60)
        for number in range(1000):
            try:
                producer.send(topic, b"%d " % number + bytes(10_000)).get(60)
                fates["spooled"] += 1
            except shield.OverLimitError:
                fates["raised"] += 1
    ledger = own.ledger()
    assert ledger.balanced
    assert (ledger.spooled, ledger.raised) == (fates["spooled"], fates["raised"])
    assert fates["spooled"] > 50
    assert fates["raised"] > 50
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    own = spooling(disk, CLOSED)
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own) as producer:
        producer.send(topic, b"admitted").get(60)
        with pytest.raises(shield.OverLimitError):
            producer.send(topic, b"read-only")
    subprocess.run(["mount", "-o", "remount,rw,size=256m", str(disk)], check=True)
    own = spooling(disk, OPEN)
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own):
        eventually(lambda: own.ledger().delivered == fates["spooled"])
    values = Counter(record.value for record in read(kafka.address, topic))
    assert len(values) == fates["spooled"] + 1


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def of_a_later_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("damage", "some_come_back", "said"),
    [
        (zeroed, False, "is no spool of Shield; it was left as it is"),
        (cut_off, True, "; it was set aside as"),
        (of_a_later_version, False, "was written by a later version of Shield"),
    ],
)
def test_a_file_that_is_damaged_disturbs_nothing_else(
    kafka, topic, tmp_path, caplog, damage, some_come_back, said
):
    """It is named in the log and kept; what it still tells arrives, and others are sent."""
    bodies = {b"%d " % number + bytes(10_000) for number in range(1000)}
    with KafkaProducer(bootstrap_servers=kafka.address, shield=spooling(tmp_path, CLOSED)) as full:
        full.send(topic, b"admitted").get(60)
        for future in [full.send(topic, body) for body in bodies]:
            future.get(60)
    (file,) = tmp_path.glob("*.spool")
    damage(file)
    before = file.read_bytes()
    own = spooling(tmp_path, OPEN)
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own) as producer:
        producer.send(topic, b"after").get(60)
        eventually(lambda: not own.ledger().spooled)
    assert own.ledger().balanced
    assert said in caplog.text
    values = {record.value for record in read(kafka.address, topic)}
    came_back = values & bodies
    assert values - bodies == {b"admitted", b"after"}
    assert (0 < len(came_back) < len(bodies)) if some_come_back else not came_back
    (kept,) = [path for path in tmp_path.glob("*.spool*") if path.read_bytes() == before]
    assert str(kept) in caplog.text
