"""The shielded kafka-python consumer against the bare one: a topic read whole, from a real broker.

The consumers are made once, warmed up and kept, as the producers' are; each run begins with a seek
to the beginning of the one partition. Without a group, so that no rebalance and no commit falls
into a run: a commit is one call more for each batch, and nothing for a record. Polled, and
iterated over. The client is bound by Python itself, so beside the time on the clock stands the
processor time of this process: what other programs do moves it less.

The rule's quota is wide enough to admit everything, and the ledger must say so.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import kafka
from kafka import KafkaAdminClient, TopicPartition

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
from shield import Shield
from shield_kafka import KafkaConsumer

TARGET = 0.95
SIZES = (100, 1024)
Read = Callable[[Any, int], None]
BARE, SHIELDED, NO_RULE = "bare", "shielded", "shielded, no rule covers it"


def run(effort: Effort) -> Report:
    """Measure each size of message, both ways of reading, on the shared Kafka."""
    noise = Noise()
    results: list[Result] = []
    with shared(KAFKA) as broker:
        for size in SIZES:
            with _topic(broker.address) as topic:
                results += _compare(broker.address, topic, size, effort, noise)
    shielded = [r.ratio for r in results if r.target and r.ratio is not None]
    return Report(
        name="consumer",
        results=results,
        ratio=min(shielded),
        ratio_of="messages a second of 'shielded' over 'bare', the lowest of sizes and ways",
        target=f"shielded at least {TARGET}x of bare, at both sizes and both ways",
        noise=noise.relative,
        versions=versions_of("kafka-python"),
        notes=[f"broker: {broker.way}; ratios are medians over pairs of neighbouring runs"],
    )


def _compare(address: str, topic: str, size: int, effort: Effort, noise: Noise) -> list[Result]:
    messages = effort.of(20_000, 300)
    _fill(address, topic, size, messages)
    rule = {"match": topic, "direction": "consume", "quota": {"rate": "1000000000/s"}}
    shields = {
        SHIELDED: Shield({"shield": {"producer": "bench"}, "rules": [rule]}),
        NO_RULE: Shield({"shield": {"producer": "bench"}}),
    }
    runs = effort.runs_of(7, 1)
    lines: list[Result] = []
    with ExitStack() as stack:
        consumers = {BARE: stack.enter_context(_reading(kafka.KafkaConsumer, address, topic))}
        for side, shield in shields.items():
            shielded = partial(KafkaConsumer, shield=shield)
            consumers[side] = stack.enter_context(_reading(shielded, address, topic))
        for way, read in (("poll", _poll), ("iteration", _iterate)):
            cpu: dict[str, list[float]] = {side: [] for side in consumers}

            def one(side: str, read: Read = read, cpu: dict[str, list[float]] = cpu) -> float:
                begun_cpu = time.process_time()
                rate = _rate(read, consumers[side], topic, messages)
                cpu[side].append((time.process_time() - begun_cpu) / messages * 1e6)
                return rate

            for consumer in consumers.values():
                _rate(read, consumer, topic, messages)
            sides = {side: partial(one, side) for side in consumers}
            rates = interleave(sides, runs, noise, f"consumer, {way}, {size} B")
            lines += _lines(f"{way}, {size} B", rates, cpu)
    for shield in shields.values():
        _prove_all_handed_over(shield, 2 * (runs + 1) * messages)
    return lines


def _lines(what: str, rates: dict[str, list[float]], cpu: dict[str, list[float]]) -> list[Result]:
    lines = []
    for side in rates:
        line = result_of(f"{what}, {side}", rates[side], "messages/s")
        cost = result_of(f"{what}, {side}, cpu", cpu[side], "us/message")
        if side != BARE:
            line.ratio, line.ratio_to = median_of_pairs(rates[side], rates[BARE]), BARE
            cost.ratio, cost.ratio_to = median_of_pairs(cpu[BARE], cpu[side]), BARE
        if side == SHIELDED:
            line.aims(line.ratio, at_least=TARGET)
        lines += [line, cost]
    return lines


def _rate(read: Read, consumer: Any, topic: str, messages: int) -> float:
    consumer.seek_to_beginning(TopicPartition(topic, 0))
    gc.collect()
    begun = time.perf_counter()
    read(consumer, messages)
    return messages / (time.perf_counter() - begun)


def _poll(consumer: Any, messages: int) -> None:
    while messages > 0:
        for records in consumer.poll(1000).values():
            for _ in records:
                messages -= 1


def _iterate(consumer: Any, messages: int) -> None:
    for _ in islice(consumer, messages):
        pass


def _fill(address: str, topic: str, size: int, messages: int) -> None:
    with kafka.KafkaProducer(bootstrap_servers=address, linger_ms=5) as producer:
        for _ in range(messages):
            producer.send(topic, bytes(size), partition=0)


def _prove_all_handed_over(shield: Shield, messages: int) -> None:
    ledger = shield.ledger()
    if not (ledger.balanced and ledger.offered == ledger.delivered == messages):
        raise AssertionError(f"{messages} were read, and the ledger has {ledger.as_dict()}")


@contextmanager
def _topic(address: str) -> Iterator[str]:
    topic = create_topic(address, 1)
    try:
        yield topic
    finally:
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            admin.delete_topics([topic])


@contextmanager
def _reading(client: Callable[..., Any], address: str, topic: str) -> Iterator[Any]:
    consumer = client(bootstrap_servers=address, auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, 0)])
        yield consumer
    finally:
        consumer.close()
