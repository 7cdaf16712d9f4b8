"""A RabbitMQ that is frozen, or in an alarm: nobody is held beyond the time that he gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pika
import pytest
from pika import BasicProperties, URLParameters

from integration.brokers import RabbitMQ
from integration.event_loop import EventLoop
from integration.queues import Queues
from shield import Shield
from shield_rabbitmq import (
    BlockingConnection,
    Publisher,
    PublisherClosedError,
    SelectConnection,
)
from tests.eventually import eventually

SLACK_S = 5.0
"""What a busy machine, and the end of the write thread (three seconds), may take beyond a limit."""
HEARTBEAT_S = 4


@pytest.fixture(scope="module")
def own_rabbitmq(private_rabbitmq) -> RabbitMQ:
    """A RabbitMQ to be frozen; every test leaves it running."""
    return private_rabbitmq()


@pytest.fixture
def loops() -> Iterator[list[EventLoop]]:
    """Event loops to be closed once the trouble is over."""
    loops: list[EventLoop] = []
    yield loops
    for loop in loops:
        loop.close()


@pytest.fixture(params=["frozen", "alarm"])
def trouble(
    request: Any, own_rabbitmq: RabbitMQ, loops: list[EventLoop]
) -> Iterator[Callable[[], None]]:
    """Call it to begin the trouble; it ends with the test."""
    if request.param == "frozen":
        yield own_rabbitmq.pause
        own_rabbitmq.resume()
    else:
        yield lambda: own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
        own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


def took(call: Callable[[], object]) -> float:
    """Return how many seconds a call takes; it may fail as pika does on a lost connection."""
    began = time.monotonic()
    with suppress(pika.exceptions.AMQPError):
        call()
    return time.monotonic() - began


def test_a_publisher_holds_nobody_beyond_the_time_he_gives(own_rabbitmq, trouble):
    """`flush` and `close` by theirs; `publish`, which waits for room, until `close`."""
    with Queues(own_rabbitmq.address) as queues:
        queue = queues.queue()
    publisher = Publisher(own_rabbitmq.address, shield={}, max_messages=20)
    publisher.publish("", queue, b"before").result(60)
    trouble()
    futures = [publisher.publish("", queue, b"%d" % n) for n in range(20)]
    errors: list[BaseException] = []

    def one_more() -> None:
        try:
            publisher.publish("", queue, b"one more")
        except BaseException as error:
            errors.append(error)

    waiting = threading.Thread(target=one_more)
    waiting.start()
    assert 1.0 <= took(lambda: publisher.flush(1.0)) < 1.0 + SLACK_S
    assert took(lambda: publisher.close(1.0)) < 1.0 + SLACK_S
    waiting.join(SLACK_S)
    assert [type(error) for error in errors] == [PublisherClosedError]
    assert all(future.done() for future in futures)
    ledger = publisher.shield.ledger()
    assert (ledger.in_flight, ledger.balanced) == (0, True)


def test_a_shielded_connection_closes_as_soon_as_the_bare_one(own_rabbitmq, trouble):
    """And the five seconds for what it has diverted: pika waits for an answer, or a heartbeat."""
    with Queues(own_rabbitmq.address) as queues:
        queue, late = queues.queue(), queues.queue()
        old = BasicProperties(timestamp=int(time.time()) - 3600)
        for _ in range(20):
            queues.channel.basic_publish("", queue, b"stale", old)
    parameters = URLParameters(own_rabbitmq.address)
    parameters.heartbeat = HEARTBEAT_S
    rule = {"match": queue, "direction": "consume", "max_age": "1m"}
    own = Shield({"rules": [{**rule, "over_limit": f"overflow /{late}"}]})
    bare = pika.BlockingConnection(parameters)
    shielded = BlockingConnection(parameters, shield=own)
    bare.channel()
    channel = shielded.channel()
    channel.basic_consume(queue, lambda *_: None)
    eventually(lambda: shielded.process_data_events(0.1) or own.ledger().overflowed)
    trouble()
    times: dict[str, float] = {}

    def close(name: str, connection: Any) -> None:
        times[name] = took(connection.close)

    threads = [
        threading.Thread(target=close, args=(name, connection))
        for name, connection in (("bare", bare), ("shielded", shielded))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert times["shielded"] < times["bare"] + 5.0 + SLACK_S
    assert own.ledger().balanced


def test_an_event_loop_goes_on_while_a_channel_diverts_and_closes(own_rabbitmq, loops, trouble):
    """Its timers are on time, and closing does not block it."""
    with Queues(own_rabbitmq.address) as queues:
        queue, late = queues.queue(), queues.queue()
        old = BasicProperties(timestamp=int(time.time()) - 3600)
        for _ in range(50):
            queues.channel.basic_publish("", queue, b"stale", old)
    rule = {"match": queue, "direction": "consume", "max_age": "1m"}
    own = Shield({"rules": [{**rule, "over_limit": f"overflow /{late}"}]})
    loop = EventLoop(
        lambda *args, **named: SelectConnection(*args, shield=own, **named), own_rabbitmq.address
    )
    loops.append(loop)
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(time.monotonic())
        loop.connection.ioloop.call_later(0.05, tick)

    loop.call(tick)
    trouble()
    loop.call(loop.channel.basic_consume, queue, lambda *_: None)
    time.sleep(1.0)
    loop.call(loop.channel.close)
    time.sleep(1.0)
    gaps = [after - before for before, after in pairwise(ticks)]
    assert len(ticks) > 20
    assert max(gaps) < 0.5
