"""The spool: how fast messages get on disk, and how fast they come back into a real Kafka.

Into it: messages of 1 KB through `FakeClient`, that is through a decision, its chain, the file and
the future, until every future is done; so that no broker's client is measured. Group commit is
compared with a spool whose one caller waits for each message's own fsync.

Out of it: a spool that an earlier process has left is drained into Kafka by a shielded producer,
beside bare kafka-python that sends the same messages, with the two headers that they carry.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import kafka

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
from shield import Message, Permit, Shield
from shield.testing import FakeClient
from shield_kafka import KafkaProducer

BODY = bytes(1024)
AS_DRAINED = [
    ("shield-attempt", b"1"),
    ("shield-message-id", b"67a13b75-121e-4899-8bac-3a298e700012"),
]
IN_TARGET, GROUP_TARGET, DRAIN_TARGET = 30_000, 10, 0.8
THREADS = 8
BY_OS, GROUP, ONE_BY_ONE = "into it, os", "into it, fsync, 8 threads", "into it, one fsync each"
BARE, DRAINED = "bare kafka-python", "drained"
WITHIN_S = 100
PRODUCER = "bench"


def run(effort: Effort) -> Report:
    """Measure both ways."""
    noise = Noise()
    results = _into(effort, noise)
    with shared(KAFKA) as broker:
        results += _out_of(broker.address, effort, noise)
    drained = results[-1]
    assert drained.ratio is not None
    return Report(
        name="spool",
        results=results,
        ratio=drained.ratio,
        ratio_of="messages a second drained over bare kafka-python",
        target=f"{IN_TARGET} a second with os, {GROUP_TARGET}x one fsync each, "
        f"drained at {DRAIN_TARGET}x",
        noise=noise.relative,
        versions=versions_of("kafka-python"),
        notes=[f"broker: {broker.way}; ratios are medians over pairs of neighbouring runs"],
    )


# --- into it ------------------------------------------------------------------------------------


def _into(effort: Effort, noise: Noise) -> list[Result]:
    sides = {
        BY_OS: partial(_rate_into, "os", effort.of(60_000, 500), 1),
        GROUP: partial(_rate_into, "fsync", effort.of(40_000, 800), THREADS),
        ONE_BY_ONE: partial(_rate_one_by_one, effort.of(1_000, 50)),
    }
    rates = interleave(sides, effort.runs_of(7, 1), noise, "spool, into it")
    lines = {name: result_of(name, runs, "messages/s") for name, runs in rates.items()}
    lines[BY_OS].aims(lines[BY_OS].value, at_least=IN_TARGET)
    group = lines[GROUP]
    group.ratio, group.ratio_to = median_of_pairs(rates[GROUP], rates[ONE_BY_ONE]), ONE_BY_ONE
    group.aims(group.ratio, at_least=GROUP_TARGET)
    return list(lines.values())


def _rate_into(durability: str, messages: int, threads: int) -> float:
    """Publish from so many threads; return messages a second until all futures are done."""
    with _folder() as folder:
        client = FakeClient(_shut(folder, "orders", durability), PRODUCER)
        callers = [
            threading.Thread(target=_publish, args=(client, messages // threads))
            for _ in range(threads)
        ]
        gc.collect()
        begun = time.perf_counter()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        took_s = time.perf_counter() - begun
        _close(client, messages)
    return messages / took_s


def _publish(client: FakeClient, messages: int) -> None:
    futures = [client.publish("orders", BODY) for _ in range(messages)]
    for future in futures:
        future.result(WITHIN_S)


def _rate_one_by_one(messages: int) -> float:
    with _folder() as folder:
        client = FakeClient(_shut(folder, "orders", "fsync"), PRODUCER)
        begun = time.perf_counter()
        for _ in range(messages):
            client.publish("orders", BODY).result(WITHIN_S)
        took_s = time.perf_counter() - begun
        _close(client, messages)
    return messages / took_s


def _close(client: FakeClient, messages: int) -> None:
    """Close the client; AssertionError where not every message is accounted for."""
    client.close(WITHIN_S)
    ledger = client.shield.ledger()
    assert ledger.balanced
    assert ledger.spooled == messages, f"{messages} were sent; the ledger says {ledger}"


# --- out of it ----------------------------------------------------------------------------------


def _out_of(address: str, effort: Effort, noise: Noise) -> list[Result]:
    messages = effort.of(30_000, 3_000)  # a few times the window, so that some come after the first
    topic = create_topic(address)
    sides = {
        BARE: partial(_rate_bare, address, topic, messages),
        DRAINED: partial(_rate_drained, address, topic, messages),
    }
    rates = interleave(sides, effort.runs_of(7, 1), noise, "spool, out of it")
    bare, drained = (result_of(name, rates[name], "messages/s") for name in sides)
    drained.ratio, drained.ratio_to = median_of_pairs(rates[DRAINED], rates[BARE]), BARE
    return [bare, drained.aims(drained.ratio, at_least=DRAIN_TARGET)]


def _rate_bare(address: str, topic: str, messages: int) -> float:
    producer = kafka.KafkaProducer(bootstrap_servers=address)
    try:
        producer.partitions_for(topic)
        gc.collect()
        begun = time.perf_counter()
        for _ in range(messages):
            producer.send(topic, BODY, headers=AS_DRAINED)
        producer.flush(WITHIN_S)
        return messages / (time.perf_counter() - begun)
    finally:
        producer.close()


def _rate_drained(address: str, topic: str, messages: int) -> float:
    """Fill a spool, then let another producer drain it, as one of a fresh process would.

    Timed from the first message that has arrived to the last, as the bare client's from when it
    knows the topic: neither connecting is measured, nor filling.
    """
    with _folder() as folder:
        full = KafkaProducer(bootstrap_servers=address, shield=_shut(folder, topic, "os"))
        for _ in range(messages):
            full.send(topic, BODY)
        full.close(WITHIN_S)
        shield = Shield(_settings(folder, topic, "os", {"in_flight": {"messages": 10_000}}))
        gc.collect()
        producer = KafkaProducer(bootstrap_servers=address, shield=shield)
        first = _delivered(shield, 1, look_every_s=0.001)
        begun = time.perf_counter()
        last = _delivered(shield, messages, look_every_s=0.02)
        took_s = time.perf_counter() - begun
        producer.close(WITHIN_S)
        assert shield.ledger().balanced
    return (last - first) / took_s


def _delivered(shield: Shield, messages: int, look_every_s: float) -> int:
    """Wait until so many are delivered; return how many are.

    To look costs the interpreter as much as a message does.
    """
    deadline = time.perf_counter() + WITHIN_S
    while (delivered := shield.ledger().delivered) < messages:
        assert time.perf_counter() < deadline, shield.ledger()
        time.sleep(look_every_s)
    return delivered


# --- both ---------------------------------------------------------------------------------------


def _shut(folder: Path, topic: str, durability: str) -> Shield:
    """Return a Shield that spools all but its first message, which is used up."""
    shut = {"quota": {"rate": "1/d", "burst": 1}}
    shield = Shield(_settings(folder, topic, durability, shut))
    permit = shield.admit(Message(topic, 1, PRODUCER))
    assert isinstance(permit, Permit)
    permit.delivered()
    return shield


def _settings(
    folder: Path, topic: str, durability: str, policies: dict[str, Any]
) -> dict[str, Any]:
    spool = {"spool": {"size": "4GiB", "durability": durability}}
    rule = {"name": "bench", "match": topic, **policies, "over_limit": [spool, "raise"]}
    return {"shield": {"producer": PRODUCER, "spool_dir": str(folder)}, "rules": [rule]}


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="shield-spool-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
