"""Redrive of a topic against a bare loop that consumes and produces, with the same client.

Both sides take the same messages, with the same headers and keys, from one topic of a real Kafka
to another, each in a process of its own: the loop polls kafka-python's consumer and hands each
record to kafka-python's producer, and it commits at the end. Redrive reads the envelope, restores
it, asks the rules, waits for the confirm of each and forgets it. Its keys are all different, so
that no message waits for another of its key. Memory is the growth of the resident set of the
redriving process from a tenth of the way to the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import kafka
from kafka import KafkaAdminClient

from benchmarks.measure import (
    Effort,
    Noise,
    Report,
    Result,
    interleave,
    median_of_pairs,
    result_of,
    versions_of,
)
from integration.brokers import KAFKA, create_topic, shared
from integration.reading import count

TARGET = 0.5
MOST_GROWTH_MB = 20.0
SIZE = 200
PARTITIONS = 4
BARE, REDRIVE = "bare loop", "redrive"


def run(effort: Effort) -> Report:
    """Fill a topic, and move it with each side in turn."""
    noise = Noise()
    messages = effort.of(1_000_000, 3_000)
    growths: list[float] = []
    with shared(KAFKA) as broker, _topics(broker.address) as make:
        source = make()
        _fill(broker.address, source, messages)
        sides = {
            BARE: partial(_bare, broker.address, source, make, messages),
            REDRIVE: partial(_redrive, broker.address, source, make, messages, growths),
        }
        rates = interleave(sides, effort.runs_of(1, 1), noise, "redrive")
    lines = [result_of(side, rates[side], "messages/s") for side in sides]
    ratio = median_of_pairs(rates[REDRIVE], rates[BARE])
    lines[1].ratio, lines[1].ratio_to = ratio, BARE
    lines[1].aims(ratio, at_least=TARGET)
    growth = Result("redrive, memory grown", max(growths), "MB", runs=growths)
    lines.append(growth.aims(growth.value, below=MOST_GROWTH_MB))
    return Report(
        name="redrive",
        results=lines,
        ratio=ratio,
        ratio_of="messages a second of 'redrive' over 'bare loop'",
        target=f"at least {TARGET}x of the loop; memory grows by less than {MOST_GROWTH_MB:g} MB",
        noise=noise.relative,
        versions=versions_of("kafka-python"),
        notes=[f"broker: {broker.way}; {messages:,} messages of {SIZE} B, each with a key"],
    )


def _bare(address: str, source: str, make: Any, messages: int) -> float:
    return _in_process(address, source, make(), messages, "bare")["rate"]


def _redrive(address: str, source: str, make: Any, messages: int, growths: list[float]) -> float:
    target = make()
    found = _in_process(address, source, target, messages, "redrive")
    growths.append(found["grown_mb"])
    if found["sent"] != messages or count(address, target) != messages:
        raise AssertionError(f"{messages} messages were there, and {found} came back")
    return found["rate"]


def _in_process(address: str, source: str, target: str, messages: int, how: str) -> dict[str, Any]:
    arguments = [address, source, target, str(messages), how]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.redriven", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _fill(address: str, topic: str, messages: int) -> None:
    """Put diverted messages there; where they were going is said to each side when it runs."""
    headers = [
        ("shield-original-destination", b"benchmark"),
        ("shield-rule", b"orders"),
        ("shield-policy", b"quota"),
        ("shield-reason", b"rate 500/s"),
        ("shield-producer", b"bench"),
        ("shield-attempt", b"1"),
    ]
    value = bytes(SIZE)
    producer = kafka.KafkaProducer(bootstrap_servers=address, linger_ms=50, batch_size=262_144)
    for number in range(messages):
        own = ("shield-message-id", b"%036d" % number)
        producer.send(topic, value, key=b"%d" % number, headers=[*headers, own])
        if number % 50_000 == 0:
            producer.flush()
    producer.flush()
    producer.close()
    while count(address, topic) < messages:
        time.sleep(0.1)


@contextmanager
def _topics(address: str) -> Iterator[Any]:
    made: list[str] = []

    def make() -> str:
        made.append(create_topic(address, PARTITIONS))
        return made[-1]

    try:
        yield make
    finally:
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            admin.delete_topics(made)
