"""`buffer` and `order = "key"` on real brokers: all arrive, in order, with their real results."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from typing import Any

import pytest
from pika import BasicProperties

import shield
from integration.brokers import RabbitMQ
from integration.queues import Queues
from integration.reading import read
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher

PERSISTENT = BasicProperties(delivery_mode=2)
RATE = 400


def rules(match: str, *chain: object, **policies: Any) -> dict[str, Any]:
    quota = {"rate": f"{RATE}/s", "burst": 100}
    rule = {"match": match, "quota": quota, "over_limit": list(chain) or ["raise"], **policies}
    return {"rules": [rule]}


def publish_at_three_times_the_quota(publish, messages: int) -> list[Any]:
    """Call it so often, a third of the time that the quota takes for it."""
    results = []
    began = time.monotonic()
    for number in range(messages):
        results.append(publish(number))
        ahead_s = number / (3 * RATE) - (time.monotonic() - began)
        if ahead_s > 0:
            time.sleep(ahead_s)
    return results


def counts(ledger: shield.Ledger) -> dict[str, int]:
    assert ledger.balanced
    names = ("offered", "in_flight", *map(str, shield.End))
    return {name: getattr(ledger, name) for name in names if getattr(ledger, name)}


@pytest.mark.smoke
def test_at_three_times_the_quota_all_arrive_in_order_on_kafka(kafka, new_topic):
    """Futures complete with real offsets, as those of the client's own sends; flush waits."""
    topic, messages = new_topic(1), 900
    producer = KafkaProducer(bootstrap_servers=kafka.address, shield=rules(topic, "buffer 5000"))
    producer.partitions_for(topic)
    began = time.monotonic()
    futures = publish_at_three_times_the_quota(
        lambda number: producer.send(topic, b"%d" % number, b"k"), messages
    )
    fates = [shield.fate(future) for future in futures]
    assert fates.count("buffered") > messages / 3
    assert producer.shield.ledger().buffered > 0
    producer.flush(30)
    took_s = time.monotonic() - began
    assert all(future.is_done for future in futures)
    assert [future.get(0).offset for future in futures] == list(range(messages))
    assert {type(future) for future in futures} == {type(futures[0])}
    assert [int(record.value) for record in read(kafka.address, topic)] == list(range(messages))
    assert took_s > 0.95 * (messages - 100) / RATE  # each was charged ...
    assert took_s < (2 * messages - 100) / RATE  # ... and only once
    assert counts(producer.shield.ledger()) == {"offered": messages, "delivered": messages}
    producer.close()


@pytest.mark.parametrize("per", ["producer", "key"])
@pytest.mark.parametrize("keeper", ["buffer", "spool 64MiB"])
def test_within_each_key_the_sequence_never_goes_backwards(kafka, new_topic, tmp_path, keeper, per):
    """Eight keys from four threads, far over the quota, some waiting first: read from the topic."""
    topic, each = new_topic(4), 100
    quota = {"rate": "300/s" if per == "producer" else "40/s", "burst": 20, "per": per}
    rule = {"match": topic, "quota": quota, "order": "key", "over_limit": ["wait 2ms", keeper]}
    settings = {"shield": {"spool_dir": str(tmp_path)}, "rules": [rule]}
    producer = KafkaProducer(bootstrap_servers=kafka.address, shield=settings)
    producer.partitions_for(topic)

    def send(thread: int) -> None:
        for number in range(each):
            for key in (2 * thread, 2 * thread + 1):
                producer.send(topic, b"%d" % number, b"key-%d" % key)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert producer.shield.ledger().buffered + producer.shield.ledger().spooled > 100
    deadline = time.monotonic() + 60
    while producer.shield.ledger().delivered < 8 * each and time.monotonic() < deadline:
        time.sleep(0.05)
    producer.close(timeout=10)
    sequences: defaultdict[bytes, list[int]] = defaultdict(list)
    for record in sorted(read(kafka.address, topic), key=lambda r: (r.partition, r.offset)):
        sequences[record.key].append(int(record.value))
    assert len(sequences) == 8
    for sequence in sequences.values():
        assert sequence == list(range(each))
    assert counts(producer.shield.ledger()) == {"offered": 8 * each, "delivered": 8 * each}


@pytest.mark.smoke
def test_at_three_times_the_quota_all_arrive_in_order_on_rabbitmq(rabbitmq: RabbitMQ):
    """Futures complete with the broker's confirm; flush waits for them."""
    messages = 900
    with Queues(rabbitmq.address) as queues:
        exchange = queues.exchange()
        queue = queues.queue(exchange, "key")
        publisher = Publisher(rabbitmq.address, shield=rules(f"{exchange}/*", "buffer 5000"))
        publisher.publish(exchange, "key", b"0", PERSISTENT).result(60)
        futures = publish_at_three_times_the_quota(
            lambda number: publisher.publish(exchange, "key", b"%d" % (number + 1), PERSISTENT),
            messages - 1,
        )
        fates = [shield.fate(future) for future in futures]
        assert fates.count("buffered") > messages / 3
        publisher.flush(30)
        assert all(future.done() for future in futures)
        assert {future.result(0) for future in futures} == {None}
        assert publisher.unconfirmed == 0
        assert [int(body) for body in queues.bodies(queue)] == list(range(messages))
    assert counts(publisher.shield.ledger()) == {"offered": messages, "delivered": messages}
    publisher.close()


def test_a_transactional_producers_messages_are_not_buffered(kafka, new_topic):
    """They would escape their transaction; the chain goes on."""
    topic = new_topic(1)
    rule = {"match": topic, "quota": {"rate": "1/h", "burst": 1}, "over_limit": ["buffer", "drop"]}
    producer = KafkaProducer(
        bootstrap_servers=kafka.address, transactional_id=topic, shield={"rules": [rule]}
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"1")
    assert shield.fate(producer.send(topic, b"2")) == "dropped"
    producer.commit_transaction()
    producer.close(timeout=10)
    assert counts(producer.shield.ledger()) == {"offered": 2, "delivered": 1, "dropped": 1}


PROGRAM = """
import atexit, sys
import shield
from shield_kafka import KafkaProducer

def at_the_very_end():
    ledger = shield.ledger()
    done = sum(future.is_done for future in futures)
    print(done, ledger.delivered, ledger.dropped, ledger.in_flight, ledger.balanced)

atexit.register(at_the_very_end)
address, topic, rate = sys.argv[1:]
rule = {"match": topic, "quota": {"rate": rate, "burst": 1}, "over_limit": ["buffer", "drop"]}
producer = KafkaProducer(bootstrap_servers=address, shield={"rules": [rule]})
producer.partitions_for(topic)
futures = [producer.send(topic, b"%d" % number) for number in range(20)]
"""


@pytest.mark.parametrize(("rate", "arrive"), [("50/s", 20), ("1/h", 1)])
def test_a_program_that_ends_without_close_loses_none(kafka, new_topic, rate, arrive):
    """What can be sent is sent; the rest goes on in its chain, counted; all futures are done."""
    topic = new_topic(1)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, kafka.address, topic, rate],
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )
    assert ran.stdout.split() == ["20", str(arrive), str(20 - arrive), "0", "True"], ran.stderr
    assert [int(r.value) for r in read(kafka.address, topic)] == list(range(arrive))
