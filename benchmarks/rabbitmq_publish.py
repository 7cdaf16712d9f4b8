"""Messages a second to RabbitMQ, shielded, beside pika's own ways and aio-pika's.

Persistent and each confirmed: pipelining by hand is what somebody who needs speed writes with
pika's SelectConnection: one thread, no quotas, no futures, a window of 1000 counted by hand.
`confirm_delivery` is what pika's BlockingConnection offers; it waits for each confirm, so it gets
fewer messages to send. `gather` is what aio-pika's users write: a thousand publishes awaited
together, then the next thousand. Publisher is fed by four threads, each of which waits for its
oldest future when it holds more than a thousand.

Not confirmed: `basic_publish` in a loop, on a shielded channel and on pika's own; the clock stops
when the broker has answered a question that was asked behind the last message.

The shielded sides have a rule with a quota and a bound that admit everything, and the ledger must
say so. Connections are made before the clock starts. The queue is emptied between runs.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import aio_pika
import pika
from pika import BasicProperties

import shield_rabbitmq
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
from integration.brokers import RABBITMQ, shared
from integration.queues import Queues
from shield import Shield
from shield_rabbitmq import Publisher

SHIELDED, BY_HAND, ONE_BY_ONE = "Publisher, 4 threads", "pipelined by hand", "confirm_delivery"
GATHER = "aio-pika, gather"
CHANNEL, BARE = "shielded channel, no confirms", "pika's channel, no confirms"
PAIRS = ((SHIELDED, BY_HAND, 0.9), (SHIELDED, ONE_BY_ONE, 10), (SHIELDED, GATHER, 0))
"""A shielded side, the other one, and how many times faster it is to be; 0 where it is a look."""
UNCONFIRMED = (CHANNEL, BARE, 0.95)
THREADS = 4
WINDOW = 1000
ARRIVE_S = 10
BODY = bytes(1024)
PERSISTENT = BasicProperties(delivery_mode=2)


def run(effort: Effort) -> Report:
    """Measure on the shared RabbitMQ."""
    noise = Noise()
    with shared(RABBITMQ) as broker, Queues(broker.address) as queues:
        queue = queues.queue()
        try:
            rates = _measure(broker.address, queues, queue, effort, noise)
        finally:
            queues.channel.queue_delete(queue)
    pairs = (*PAIRS, UNCONFIRMED)
    results = {side: result_of(side, values, "messages/s") for side, values in rates.items()}
    for shielded, side, target in pairs:
        _compare(results[side], rates[shielded], rates[side], shielded, target)
    ratio = results[BY_HAND].ratio
    assert ratio is not None
    return Report(
        name="rabbitmq_publish",
        results=list(results.values()),
        ratio=ratio,
        ratio_of=f"messages a second of {SHIELDED!r} over {BY_HAND!r}",
        target="; ".join(f"at least {to}x of {side}" for _, side, to in pairs if to),
        noise=noise.relative,
        versions=versions_of("pika", "aio-pika"),
        notes=[
            f"broker: {broker.way}; ratios are medians over pairs of neighbouring runs",
            f"a durable classic queue, {len(BODY)} bytes, window {WINDOW}",
        ],
    )


def _compare(
    other: Result, these: list[float], those: list[float], shielded: str, target: float
) -> None:
    other.ratio_to = f"{shielded} over it"
    other.ratio = median_of_pairs(these, those)
    if target:
        other.aims(other.ratio, at_least=target)


def _measure(
    url: str, queues: Queues, queue: str, effort: Effort, noise: Noise
) -> dict[str, list[float]]:
    many, few = effort.of(20_000, 400), effort.of(1_000, 50)
    shield, of_channel = wide_shield(queue), wide_shield(queue)
    parameters = pika.URLParameters(url)
    with (
        Publisher(url, shield=shield, window=WINDOW) as publisher,
        shield_rabbitmq.BlockingConnection(parameters, shield=of_channel) as shielded,
        pika.BlockingConnection(parameters) as bare,
        asyncio.Runner() as loop,
    ):
        publisher.publish("", queue, BODY, PERSISTENT).result(30)
        timed = {
            SHIELDED: (many, lambda: _publisher(publisher, queue, many)),
            BY_HAND: (many, lambda: _by_hand(url, queue, many)),
            ONE_BY_ONE: (few, lambda: _one_by_one(url, queue, few)),
            GATHER: (many, lambda: loop.run(_gather(url, queue, many))),
            CHANNEL: (many, lambda: _unconfirmed(shielded, queue, many)),
            BARE: (many, lambda: _unconfirmed(bare, queue, many)),
        }
        sides = {name: _emptied(queues, queue, *side) for name, side in timed.items()}
        runs = effort.runs_of(7, 1)
        rates = interleave(sides, runs, noise, "rabbitmq_publish")
    _prove_all_delivered(shield, runs * many + 1)
    _prove_all_delivered(of_channel, runs * many)
    return rates


def _prove_all_delivered(shield: Shield, published: int) -> None:
    ledger = shield.ledger()
    if not (ledger.balanced and ledger.offered == ledger.delivered == published):
        raise AssertionError(f"{published} were published; the ledger: {ledger.as_dict()}")


def _emptied(
    queues: Queues, queue: str, messages: int, side: Callable[[], float]
) -> Callable[[], float]:
    """Return the side with an empty queue before it, and a count of what it brought after it."""

    def one() -> float:
        queues.channel.queue_purge(queue)
        gc.collect()
        seconds = side()
        _prove_arrived(queues, queue, messages)
        return messages / seconds

    return one


def _prove_arrived(queues: Queues, queue: str, messages: int) -> None:
    """A queue is asked for its depth ahead of what it has not taken in yet."""
    give_up = time.monotonic() + ARRIVE_S
    while (arrived := queues.depth(queue)) != messages:
        if time.monotonic() > give_up:
            raise AssertionError(f"{messages} were published, {arrived} arrived")
        time.sleep(0.01)


def _publisher(publisher: Publisher, queue: str, messages: int) -> float:
    def publish(count: int) -> None:
        futures: deque[Future[None]] = deque()
        for _ in range(count):
            futures.append(publisher.publish("", queue, BODY, PERSISTENT))
            if len(futures) > WINDOW:
                futures.popleft().result(120)
        while futures:
            futures.popleft().result(120)

    with ThreadPoolExecutor(THREADS) as pool:
        begun = time.perf_counter()
        list(pool.map(publish, [messages // THREADS] * THREADS))
        return time.perf_counter() - begun


def _one_by_one(url: str, queue: str, messages: int) -> float:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    begun = time.perf_counter()
    for _ in range(messages):
        channel.basic_publish("", queue, BODY, PERSISTENT, mandatory=True)
    seconds = time.perf_counter() - begun
    connection.close()
    return seconds


async def _gather(url: str, queue: str, messages: int) -> float:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        publish, mode = channel.default_exchange.publish, aio_pika.DeliveryMode.PERSISTENT
        begun = time.perf_counter()
        for first in range(0, messages, WINDOW):
            some = range(first, min(first + WINDOW, messages))
            await asyncio.gather(
                *(publish(aio_pika.Message(BODY, delivery_mode=mode), queue) for _ in some)
            )
        return time.perf_counter() - begun


def _unconfirmed(connection: pika.BlockingConnection, queue: str, messages: int) -> float:
    channel = connection.channel()
    publish = channel.basic_publish
    begun = time.perf_counter()
    for _ in range(messages):
        publish("", queue, BODY, PERSISTENT)
    channel.queue_declare(queue, passive=True)
    seconds = time.perf_counter() - begun
    channel.close()
    return seconds


def _by_hand(url: str, queue: str, messages: int) -> float:
    pipeline = Pipeline(queue, messages)
    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda connection: connection.channel(on_open_callback=pipeline.begin),
        on_close_callback=lambda connection, _error: connection.ioloop.stop(),
    )
    connection.ioloop.start()
    return pipeline.seconds


class Pipeline:
    """As many messages in flight as the window holds; counts confirms and nothing else."""

    def __init__(self, queue: str, messages: int) -> None:
        self._queue = queue
        self._messages = messages
        self._sent = self._confirmed = 0
        self._next = 1
        self._apart: set[int] = set()
        self.seconds = 0.0

    def begin(self, channel: Any) -> None:
        self._channel = channel
        channel.confirm_delivery(self._on_confirm, callback=self._start)

    def _start(self, _frame: object) -> None:
        self._begun = time.perf_counter()
        self._fill()

    def _fill(self) -> None:
        publish = self._channel.basic_publish
        while self._sent < self._messages and self._sent - self._confirmed < WINDOW:
            publish("", self._queue, BODY, PERSISTENT, mandatory=True)
            self._sent += 1

    def _on_confirm(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            while self._next <= tag:
                self._confirmed += self._next not in self._apart
                self._apart.discard(self._next)
                self._next += 1
        else:
            self._apart.add(tag)
            self._confirmed += 1
        if self._confirmed == self._messages:
            self.seconds = time.perf_counter() - self._begun
            self._channel.connection.close()
        else:
            self._fill()
