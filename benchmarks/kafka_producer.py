"""The shielded kafka-python producer against the bare one: send + flush, on a real broker.

The three producers are made once, warmed up and kept: a fresh one for each run would bring its
connection, its metadata and its first idempotence handshake into every measurement, and they vary
more than what is measured. One that rests costs nothing but a thread asleep in `select`. All of
them send to the same topic. The client is bound by Python itself, so beside the time on the clock
stands the processor time of this process: what other programs do moves it less. The garbage
collector stays on, as it is in the programs that send, and collects before each run.

The rule's quota and bound are wide enough to admit everything, and the ledger must say so.
"""

from __future__ import annotations

import gc
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
from benchmarks.wide import wide_shield
from integration.brokers import KAFKA, create_topic, shared
from shield import Shield
from shield_kafka import KafkaProducer

TARGET = 0.95
SIZES = (100, 1024)
BARE, SHIELDED, NO_RULE = "bare", "shielded", "shielded, no rule covers it"
FLUSH_S = 120


def run(effort: Effort) -> Report:
    """Measure each size of message on the shared Kafka."""
    noise = Noise()
    results: list[Result] = []
    with shared(KAFKA) as broker, _topic(broker.address) as topic:
        for size in SIZES:
            results += _compare(broker.address, topic, size, effort, noise)
    shielded = [r for r in results if r.target and r.ratio is not None]
    return Report(
        name="kafka_producer",
        results=results,
        ratio=min(r.ratio for r in shielded if r.ratio is not None),
        ratio_of="messages a second of 'shielded' over 'bare', the lower of the two sizes",
        target=f"shielded at least {TARGET}x of bare, at both sizes",
        noise=noise.relative,
        versions=versions_of("kafka-python"),
        notes=[f"broker: {broker.way}; ratios are medians over pairs of neighbouring runs"],
    )


def _compare(address: str, topic: str, size: int, effort: Effort, noise: Noise) -> list[Result]:
    messages = effort.of(40_000, 300)
    value = bytes(size)
    shield = wide_shield(topic)
    ruleless = Shield({"shield": {"producer": "bench"}})
    cpu: dict[str, list[float]] = {BARE: [], SHIELDED: [], NO_RULE: []}
    with (
        _closing(kafka.KafkaProducer(bootstrap_servers=address)) as bare,
        _closing(KafkaProducer(shield=shield, bootstrap_servers=address)) as shielded,
        _closing(KafkaProducer(shield=ruleless, bootstrap_servers=address)) as covered_by_none,
    ):
        producers = {BARE: bare, SHIELDED: shielded, NO_RULE: covered_by_none}

        def one(side: str) -> float:
            begun_cpu = time.process_time()
            rate = _rate(producers[side], topic, value, messages)
            cpu[side].append((time.process_time() - begun_cpu) / messages * 1e6)
            return rate

        for producer in producers.values():
            _rate(producer, topic, value, min(messages, 10_000))
        pairs = effort.runs_of(9, 1)
        sides = {side: partial(one, side) for side in producers}
        rates = interleave(sides, pairs, noise, f"kafka_producer, {size} B")
    for used in (shield, ruleless):
        _prove_all_delivered(used, messages * pairs + min(messages, 10_000))
    return _lines(size, rates, cpu)


def _lines(size: int, rates: dict[str, list[float]], cpu: dict[str, list[float]]) -> list[Result]:
    lines = []
    for side in rates:
        line = result_of(f"{size} B, {side}", rates[side], "messages/s")
        cost = result_of(f"{size} B, {side}, cpu", cpu[side], "us/message")
        if side != BARE:
            line.ratio, line.ratio_to = median_of_pairs(rates[side], rates[BARE]), BARE
            cost.ratio, cost.ratio_to = median_of_pairs(cpu[BARE], cpu[side]), BARE
        if side == SHIELDED:
            line.aims(line.ratio, at_least=TARGET)
        lines += [line, cost]
    return lines


def _rate(producer: Any, topic: str, value: bytes, messages: int) -> float:
    send = producer.send
    gc.collect()
    begun = time.perf_counter()
    for _ in range(messages):
        send(topic, value)
    producer.flush(FLUSH_S)
    return messages / (time.perf_counter() - begun)


def _prove_all_delivered(shield: Shield, messages: int) -> None:
    ledger = shield.ledger()
    if not (ledger.balanced and ledger.offered == ledger.delivered == messages):
        raise AssertionError(f"{messages} were sent, and the ledger has {ledger.as_dict()}")


@contextmanager
def _topic(address: str) -> Iterator[str]:
    topic = create_topic(address)
    try:
        yield topic
    finally:
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            admin.delete_topics([topic])


@contextmanager
def _closing(producer: Any) -> Iterator[Any]:
    try:
        yield producer
    finally:
        producer.close(timeout=10)
