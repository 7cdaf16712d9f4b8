"""Memory while RabbitMQ takes nothing: 1,000,000 messages of 1 KB offered during a memory alarm.

The publisher is a process of its own, watched from outside (resident memory, twenty times a
second). It publishes a few messages, then the alarm is raised on a broker of ours
(`rabbitmqctl set_vm_memory_high_watermark`), then it publishes as fast as it can, with
`in_flight = {messages = 10_000, bytes = "64MiB"}` and what is over it dropped. Then the alarm is
cleared: what was held must arrive, and what is published afterwards as well. Growth is the
highest value less that before; publishing into the alarm must end by itself.

There is no bare side: pika's BlockingConnection hangs in the first publish that fills the socket,
and keeps hanging until the alarm is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.blocked_publisher import WARM_UP
from benchmarks.measure import Effort, Noise, Report, result_of, stderr, versions_of
from benchmarks.watched import MB, Child, Watch
from integration.brokers import RABBITMQ, RabbitMQ, private
from integration.queues import Queues

SIZE = 1024
BOUND = 10_000
ALLOWED_MB = BOUND * SIZE / MB + 50
LOW, USUAL = "0.00001", "0.4"


@dataclass
class Run:
    """How far memory grew, how fast messages were offered, and how long recovery took."""

    growth_mb: float
    rate: float
    recovery_s: float
    during: dict[str, Any]
    after: dict[str, Any]


def run(effort: Effort) -> Report:
    """Raise the alarm under a publisher, on a broker of our own."""
    offers = effort.of(1_000_000, 30_000)
    noise, runs = Noise(), []
    with private(RABBITMQ) as broker:
        for _ in range(effort.runs_of(3, 1)):
            stderr.print(f"rabbitmq_memory: {offers:,} messages into an alarm", style="dim")
            noise.sample()
            runs.append(_run(broker, offers))
    growth = result_of("growth at the most", [one.growth_mb for one in runs], "MB")
    growth.aims(max(one.growth_mb for one in runs), below=ALLOWED_MB)
    return Report(
        name="rabbitmq_memory",
        results=[
            growth,
            result_of("rate of offers", [one.rate for one in runs], "messages/s"),
            result_of("alarm cleared until all is confirmed", [r.recovery_s for r in runs], "s"),
        ],
        ratio=growth.value / ALLOWED_MB,
        ratio_of=f"growth over what is allowed, {offers:,} offered",
        target=f"growth below {ALLOWED_MB:.1f} MB in every run: 10,000 x 1 KB in flight + 50 MB; "
        "everything accounted for, also after the alarm",
        noise=noise.relative,
        versions=versions_of("pika", "psutil"),
        notes=[_account(runs[-1])],
    )


def _account(one: Run) -> str:
    during, after = one.during, one.after
    return (
        f"ledger during the alarm: {during['offered']:,} offered = {during['delivered']:,} "
        f"delivered before + {during['in_flight']:,} in flight + {during['dropped']:,} dropped; "
        f"at the end: {after['delivered']:,} delivered, {after['in_flight']:,} in flight, "
        f"{after['failed']:,} failed"
    )


def _run(broker: RabbitMQ, offers: int) -> Run:
    with Queues(broker.address) as queues:
        queue = queues.queue()
        arguments = map(str, (broker.address, queue, offers, SIZE, BOUND))
        with Child("benchmarks.blocked_publisher", *arguments) as child:
            child.hear()  # it is connected, and has published its warm-up
            with _alarm(broker), Watch(child.pid) as watch:
                child.say("go on")
                during = child.hear()
            begun = time.perf_counter()
            child.say("go on")
            recovered = child.hear()
            recovery_s = time.perf_counter() - begun
            child.say("go on")
            after = child.hear()
        _prove_accounted(offers, during, recovered, after, queues.depth(queue))
        queues.channel.queue_delete(queue)
    rate = offers / during["seconds"]
    return Run(watch.peak_mb, rate, recovery_s, during["ledger"], after["ledger"])


@contextmanager
def _alarm(broker: RabbitMQ) -> Iterator[None]:
    """Raise the memory alarm, and clear it at the end; each has taken effect by then."""
    _watermark(broker, LOW, alarmed=True)
    try:
        yield
    finally:
        _watermark(broker, USUAL, alarmed=False)


def _watermark(broker: RabbitMQ, fraction: str, *, alarmed: bool) -> None:
    broker.ctl("set_vm_memory_high_watermark", fraction)
    give_up = time.monotonic() + 30
    while _is_alarmed(broker) is not alarmed:
        if time.monotonic() > give_up:
            raise RuntimeError(f"the alarm did not follow the watermark {fraction}")
        time.sleep(0.2)


def _is_alarmed(broker: RabbitMQ) -> bool:
    return "memory" in broker.ctl("eval", "rabbit_alarm:get_alarms().")


def _prove_accounted(
    offers: int,
    during: dict[str, Any],
    recovered: dict[str, Any],
    after: dict[str, Any],
    stored: int,
) -> None:
    """Every message has one end, nothing failed, and the queue holds what was delivered."""
    warm_up, held = min(WARM_UP, BOUND), min(BOUND, offers)
    middle, end = during["ledger"], after["ledger"]
    sound = (
        during["blocked"]
        and not after["blocked"]
        and middle["balanced"]
        and end["balanced"]
        and middle["offered"] == offers + warm_up
        and middle["in_flight"] == during["held"] == recovered["recovered"] == held
        and recovered["failed"] == 0
        and end["offered"] == offers + 2 * warm_up
        and end["in_flight"] == end["failed"] == 0
        and end["delivered"] == held + 2 * warm_up == stored
    )
    if not sound:
        raise AssertionError(
            f"{offers} were offered and {stored} arrived: {during}, then {recovered}, then {after}"
        )
