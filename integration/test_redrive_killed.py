"""Redrive killed with SIGKILL at random moments, from every kind of place: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer

import shield
from integration.brokers import Broker, RabbitMQ, create_topic
from integration.queues import Queues
from integration.reading import count, read
from integration.redriving import command, fill_queue, fill_topic, run
from integration.test_transports import amqp_url
from shield_kafka import KafkaProducer

PLACES = 25 if os.environ.get("SHIELD_SOAK") else 2
KILLS = 2
"""How often the redrive of each place is killed."""
MESSAGES = 2000
RATE = "1000/s"
LONGEST_S = 1.5
FROZEN, FROZEN_S = 0.3, 8.0
"""How many of them are stopped for a while before, and how long: a group waits for six seconds."""

Arrived = tuple[bytes, str, bytes | None]
"""Body, id and key of a message that is back."""


class Place(ABC):
    """Where messages are set aside, and where they belong."""

    source: str

    @abstractmethod
    def count(self) -> int:
        """How many are back."""

    @abstractmethod
    def arrived(self) -> list[Arrived]:
        """Those that are back, in the order of each key."""


class ToTopic(Place):
    """Messages that belong into a topic."""

    def __init__(self, address: str, source: str, original: str) -> None:
        self.source = source
        self._address, self._original = address, original

    def count(self) -> int:
        return count(self._address, self._original)

    def arrived(self) -> list[Arrived]:
        records = read(self._address, self._original)
        headers = [dict(record.headers) for record in records]
        return [
            (record.value, its["shield-message-id"].decode(), record.key)
            for record, its in zip(records, headers, strict=True)
            if record.value != b"admitted"
        ]


class ToQueue(Place):
    """Messages that belong into a queue."""

    def __init__(self, url: str) -> None:
        self._url = url
        with Queues(url) as queues:
            exchange = queues.exchange()
            self._original, overflow = queues.queue(exchange, "created"), queues.queue()
            where = f"{exchange}/created", "created"
            fill_queue(queues.channel, overflow, *where, range(MESSAGES))
        self.source = amqp_url(url, overflow)

    def count(self) -> int:
        with Queues(self._url) as queues:
            return queues.depth(self._original)

    def arrived(self) -> list[Arrived]:
        with Queues(self._url) as queues:
            stored = queues.take(self._original)
        return [(m.body, m.properties.headers["shield-message-id"], None) for m in stored]


def topics(kafka: Broker) -> list[Place]:
    """Overflow topics."""

    def filled() -> Place:
        overflow, original = create_topic(kafka.address, 2), create_topic(kafka.address, 2)
        fill_topic(kafka.address, overflow, original, range(MESSAGES))
        return ToTopic(kafka.address, f"kafka://{kafka.address}/{overflow}", original)

    return [filled() for _ in range(PLACES)]


def queues(rabbitmq: RabbitMQ) -> list[Place]:
    """Overflow queues."""
    return [ToQueue(rabbitmq.address) for _ in range(PLACES)]


def files(kafka: Broker, folder: Path) -> list[Place]:
    """Files as `overflow file://` writes them, several to a place."""
    numbers = range(PLACES)
    urls = [f"file://{folder}/orders-{n}?rotate=100KiB" for n in numbers]
    originals = set_aside(kafka.address, folder, [f"overflow {url}" for url in urls])
    return [ToTopic(kafka.address, urls[n], originals[n]) for n in numbers]


def spools(kafka: Broker, folder: Path) -> list[Place]:
    """Spools whose process is gone."""
    numbers = range(PLACES)
    originals = set_aside(kafka.address, folder, ["spool 64MiB"] * PLACES)
    return [ToTopic(kafka.address, str(folder / f"p+{n}.spool"), originals[n]) for n in numbers]


def set_aside(
    address: str, folder: Path, chains: Sequence[str], messages: int = MESSAGES
) -> list[str]:
    """Have a producer set messages aside by each chain; return the topics they were going to."""
    originals = [create_topic(address, 2) for _ in chains]
    rules = [
        {"name": f"{n}", "match": original, "quota": "1/d", "over_limit": chain}
        for n, (original, chain) in enumerate(zip(originals, chains, strict=True))
    ]
    settings = {"shield": {"producer": "p", "spool_dir": str(folder)}, "rules": rules}
    with KafkaProducer(bootstrap_servers=address, shield=settings) as producer:
        for original in originals:
            producer.send(original, b"admitted").get(60)
            for number in range(messages):
                producer.send(original, b"%d" % number, key=b"%d" % (number % 10))
        producer.flush()
        spooled_or_overflowed = producer.shield.ledger()
    assert spooled_or_overflowed.delivered == len(chains)
    return originals


# --- the kills ----------------------------------------------------------------------------------


def killed(source: str, *, after_a_message: bool) -> None:
    """Run a redrive and end it by SIGKILL some time after its first word, or its first message."""
    process = subprocess.Popen(
        command(source, "--rate", RATE),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if not (after_a_message and line.startswith("0 back")):
            break
    time.sleep(random.uniform(0.0, LONGEST_S))
    if random.random() < FROZEN:
        process.send_signal(signal.SIGSTOP)
        time.sleep(random.uniform(0.0, FROZEN_S))
        process.send_signal(signal.SIGCONT)
        time.sleep(random.uniform(0.0, LONGEST_S))
    process.kill()
    process.communicate()


def killed_and_completed(place: Place) -> list[int]:
    """Kill it again and again, then let one run to its end; return what was back at each kill."""
    found = []
    for kill in range(KILLS):
        killed(place.source, after_a_message=kill == 0 or random.random() < 0.5)
        found.append(place.count())
    assert run(place.source)["complete"]
    return found


def check(place: Place) -> int:
    """All is back; what is twice has one id; each once, each key is in order. Count the copies."""
    arrived = place.arrived()
    ids = defaultdict(set)
    for body, message_id, _ in arrived:
        ids[body].add(message_id)
    assert set(ids) == {b"%d" % number for number in range(MESSAGES)}, place.source
    assert {len(each) for each in ids.values()} == {1}
    assert len(set.union(*ids.values())) == MESSAGES
    known = shield.Deduplicator()
    last: dict[bytes, int] = {}
    for body, message_id, key in arrived:
        if not known.seen({"shield-message-id": message_id}) and key is not None:
            assert int(body) > last.get(key, -1), place.source
            last[key] = int(body)
    return len(arrived) - MESSAGES


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [topics, queues, files, spools])
def test_killed_at_random_moments_it_loses_nothing(
    kind: Callable[..., list[Place]], request: Any, tmp_path: Path
) -> None:
    """The next run goes on; what arrives twice has the same id, and every id all of its number."""
    broker = request.getfixturevalue("rabbitmq" if kind is queues else "kafka")
    places = kind(broker, tmp_path) if kind in (files, spools) else kind(broker)
    with ThreadPoolExecutor(6) as pool:
        back = list(pool.map(killed_and_completed, places))
        copies = list(pool.map(check, places))
    part_way = sum(0 < number < MESSAGES for each in back for number in each)
    print(
        f"{kind.__name__}: {PLACES * KILLS} kills, {part_way} of them part of the way; "
        f"copies: {sorted(copies)}"
    )
    assert part_way


@pytest.mark.timeout(60)
def test_it_ends_only_when_a_share_that_another_reader_left_behind_is_back(kafka):
    """As when that one was killed while both were joining the group."""
    overflow, original = create_topic(kafka.address, 2), create_topic(kafka.address, 2)
    fill_topic(kafka.address, overflow, original, range(100))
    other = KafkaConsumer(
        overflow,
        bootstrap_servers=kafka.address,
        group_id=f"shield-redrive-{overflow}",
        enable_auto_commit=False,
    )
    with ThreadPoolExecutor(1) as pool:
        while not other.assignment():
            other.poll(100)
        redrive = pool.submit(run, f"kafka://{kafka.address}/{overflow}")
        while not count(kafka.address, original):
            other.poll(100)
        assert count(kafka.address, original) < 100
        other.close()
        assert redrive.result()["sent"] == 100
    assert count(kafka.address, original) == 100
