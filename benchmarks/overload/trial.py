"""One trial: a load on one broker, through one side's clients, for so many seconds."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pika
from kafka import KafkaAdminClient

from benchmarks.overload.load import CAPACITY, CLASSES, Span
from benchmarks.watched import Child
from integration.brokers import create_topic
from integration.queues import Queues
from integration.reading import count
from shield import BacklogReader, BacklogTarget
from shield_kafka.operations.lag import LagReader
from shield_rabbitmq.operations.depth import DepthReader

BARE, SHIELD = SIDES = "bare", "shield"
PRODUCERS = 2
LEAD_S = 0.5
LOOK_EVERY_S = 0.25
QUIET_S = 20.0


@dataclass(frozen=True)
class Trial:
    """What is tried."""

    broker: str
    side: str
    load: float
    seconds: float
    settle_s: float

    def __str__(self) -> str:
        return f"{self.broker}, {self.side}, {self.load:g}x"


@dataclass(frozen=True)
class Outcome:
    """What was measured: messages a second, seconds, and messages."""

    trial: Trial
    offered_per_s: float
    goodput_per_s: float
    critical_p99_s: float
    critical_median_s: float
    p99_s: float
    largest_backlog: int
    shed: dict[str, float]
    offered: int
    consumed: int
    dropped: int
    left: int


def run(trial: Trial, address: str) -> Outcome:
    """Run it, and prove that every message is accounted for."""
    with _place(trial.broker, address) as place, ExitStack() as processes:
        taking = Child("benchmarks.overload.consuming", trial.broker, address, place)
        consumer = processes.enter_context(taking)
        consumer.hear()
        arguments = (trial.broker, trial.side, address, place)
        producers = [
            processes.enter_context(Child("benchmarks.overload.producing", *arguments))
            for _ in range(PRODUCERS)
        ]
        for producer in producers:
            producer.hear()
        begin_s = time.monotonic() + LEAD_S
        measured_s = begin_s + trial.settle_s
        span = [begin_s, measured_s, measured_s + trial.seconds]
        consumer.say(json.dumps({"span": span}))
        for seed, producer in enumerate(producers):
            order = {"span": span, "per_s": trial.load * CAPACITY / PRODUCERS, "seed": seed}
            producer.say(json.dumps(order))
        with _Largest(trial.broker, address, place) as largest:
            sent = [producer.hear() for producer in producers]
        consumer.say("stop")
        taken = consumer.hear()
        left = _left(trial.broker, address, place, taken["total"], sent)
    return _outcome(trial, Span(*span), sent, taken, left, largest.messages)


def _outcome(
    trial: Trial,
    span: Span,
    sent: list[dict[str, Any]],
    taken: dict[str, Any],
    left: int,
    largest: int,
) -> Outcome:
    _prove_accounted(trial, sent, taken["total"], left)
    offered = {name: sum(one["offered"].get(name, 0) for one in sent) for name in CLASSES}
    shed = {name: sum(one["shed"].get(name, 0) for one in sent) for name in CLASSES}
    return Outcome(
        trial=trial,
        offered_per_s=sum(offered.values()) / span.length_s,
        goodput_per_s=taken["in_time"] / span.length_s,
        critical_p99_s=p99(taken["critical_s"]),
        critical_median_s=statistics.median(taken["critical_s"] or [0.0]),
        p99_s=p99(taken["took_s"]),
        largest_backlog=largest,
        shed={name: shed[name] / max(1, offered[name]) for name in CLASSES},
        offered=sum(one["total"] for one in sent),
        consumed=taken["total"],
        dropped=sum(one["total_shed"] for one in sent),
        left=left,
    )


def p99(values: list[float]) -> float:
    """Return what all but one of a hundred are at or below; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0.0


def _prove_accounted(trial: Trial, sent: list[dict[str, Any]], consumed: int, left: int) -> None:
    """Every message was consumed, or shed, or is in the broker; the ledgers say the same."""
    offered = sum(one["total"] for one in sent)
    dropped = sum(one["total_shed"] for one in sent)
    if offered != consumed + dropped + left:
        raise AssertionError(
            f"{trial}: {offered} were offered; {consumed} consumed, {dropped} shed, {left} left"
        )
    for one in sent:
        ledger = one["ledger"]
        if ledger is not None and not (
            ledger["balanced"]
            and ledger["offered"] == one["total"]
            and ledger["dropped"] == one["total_shed"]
            and ledger["delivered"] == one["total"] - one["total_shed"]
        ):
            raise AssertionError(f"{trial}: the ledger does not agree with {one}")


def _left(broker: str, address: str, place: str, consumed: int, sent: list[dict[str, Any]]) -> int:
    """Count what the broker has and nobody consumed."""
    if broker == "kafka":
        return count(address, place) - consumed
    expected = sum(one["total"] - one["total_shed"] for one in sent) - consumed
    give_up = time.monotonic() + QUIET_S
    with Queues(address) as queues:
        while (found := queues.depth(place)) != expected and time.monotonic() < give_up:
            time.sleep(0.1)  # what was handed out and not acknowledged is on its way back
        return found


@contextmanager
def _place(broker: str, address: str) -> Iterator[str]:
    """Make a topic of one partition, or a queue; delete it at the end."""
    if broker == "kafka":
        topic = create_topic(address, 1)
        try:
            yield topic
        finally:
            with KafkaAdminClient(bootstrap_servers=address) as admin:
                admin.delete_topics([topic])
        return
    with Queues(address) as queues:
        queue = queues.queue()
    try:
        yield queue
    finally:
        with Queues(address) as queues:
            queues.channel.queue_delete(queue)


class _Largest:
    """Looks at what waits in the broker, now and then; keeps the most."""

    def __init__(self, broker: str, address: str, place: str) -> None:
        self.messages = 0
        self._broker, self._address = broker, address
        self._place = BacklogTarget(place, place if broker == "kafka" else "")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> _Largest:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()

    def _look_on(self) -> None:
        reader = self._reader()
        while not self._end.wait(LOOK_EVERY_S):
            found = reader.read([self._place])[self._place]
            if isinstance(found, int):
                self.messages = max(self.messages, found)
        reader.close()

    def _reader(self) -> BacklogReader:
        if self._broker == "kafka":
            return LagReader({"bootstrap_servers": self._address})
        return DepthReader(pika.URLParameters(self._address))
