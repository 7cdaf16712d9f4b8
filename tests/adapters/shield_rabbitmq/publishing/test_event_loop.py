"""`@publisher` on coroutine functions: real event loops, a RabbitMQ in memory."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter

import pytest

import shield
from shield import Shield
from shield_rabbitmq import RabbitMQOverLimitError, publisher
from tests.adapters.shield_rabbitmq.amqp_server import AmqpServer

QUEUE = "work"


@pytest.fixture
def server():
    server = AmqpServer()
    yield server
    server.close()


@pytest.fixture
def order(server):
    """Make a decorated function under a rule; its publishers are closed."""
    made = []

    def make(**rule):
        own = Shield({"rules": [{"match": QUEUE, **rule}]} if rule else {"rules": []})

        @publisher(server.url, routing_key=QUEUE, shield=own)
        async def order(number):
            return b"%d" % number

        made.append(order)
        return order, own

    yield make
    for each in made:
        each.publisher.close(5)


async def cancelled(task):
    with pytest.raises(asyncio.CancelledError):
        await task


def quota(rate, burst=1):
    return {"rate": rate, "burst": burst}


def test_a_thousand_that_wait_take_no_thread(order, server):
    """They are sent first come, first served; no thread of the pool, nor of ours, is started."""
    one, own = order(quota=quota("1000/s"), over_limit=["wait 60s", "raise"])

    async def main():
        await one(0)
        threads = threading.active_count()
        tasks = [asyncio.create_task(one(n)) for n in range(1, 1001)]
        await asyncio.sleep(0)
        while not all(task.done() for task in tasks):
            assert threading.active_count() <= threads
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert server.queues[QUEUE] == [b"%d" % n for n in range(1001)]
    ledger = own.ledger()
    assert (ledger.delivered, ledger.in_flight, ledger.balanced) == (1001, 0, True)


def test_the_loops_executor_is_free_while_they_wait(order):
    """A look-up of a name takes no longer than without them."""
    one, _ = order(quota=quota("1/h"), over_limit=["wait 2h", "raise"])

    async def main():
        await one(0)
        tasks = [asyncio.create_task(one(n)) for n in range(200)]
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(loop.getaddrinfo("localhost", 80), 10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_what_is_cancelled_while_it_waits_is_never_sent(order, server):
    """And the next in line has its place."""
    one, own = order(quota=quota("30/m"), over_limit=["wait 30s", "raise"])

    async def main():
        await one(0)
        tasks = [asyncio.create_task(one(n)) for n in range(1, 11)]
        await asyncio.sleep(0)
        for task in tasks[:9]:
            task.cancel()
        await asyncio.gather(*tasks[:9], return_exceptions=True)
        started = time.monotonic()
        await tasks[9]
        assert time.monotonic() - started < 10  # the tenth would have waited for 20 s

    asyncio.run(main())
    assert server.queues[QUEUE] == [b"0", b"10"]
    assert own.ledger().failed == 9
    assert own.ledger().balanced


def test_a_retry_that_is_cancelled_is_never_sent(order, server):
    """It sleeps between its tries, on the loop."""
    one, own = order(quota=quota("1/s"), over_limit=["retry 5", "raise"])

    async def main():
        await one(0)
        task = asyncio.create_task(one(1))
        await asyncio.sleep(0.1)
        task.cancel()
        await cancelled(task)

    asyncio.run(main())
    assert server.queues[QUEUE] == [b"0"]
    assert own.ledger().balanced


def test_what_is_cancelled_while_it_is_buffered_is_never_sent(order, server):
    """Its caller waited for its quota there."""
    one, own = order(quota=quota("5/s"), over_limit=["buffer 100", "raise"])

    async def main():
        await one(0)
        tasks = [asyncio.create_task(one(n)) for n in range(1, 4)]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        await cancelled(tasks[1])
        await tasks[0]
        await tasks[2]

    asyncio.run(main())
    assert server.queues[QUEUE] == [b"0", b"1", b"3"]
    ledger = own.ledger()
    assert (ledger.delivered, ledger.failed, ledger.in_flight) == (3, 1, 0)
    assert ledger.balanced


def test_a_wait_that_is_too_long_is_refused(order):
    """As on a thread."""
    one, own = order(quota=quota("1/h"), over_limit=["wait 10ms", "raise"])

    async def main():
        await one(0)
        with pytest.raises(RabbitMQOverLimitError):
            await one(1)

    asyncio.run(main())
    assert own.ledger().raised == 1


def test_cancelled_at_any_moment_nothing_is_sent_that_was_not_admitted(order, server):
    """Of five hundred, at random moments: the books balance, the queue holds what they say."""
    one, own = order(quota=quota("500/s", 10), over_limit=["wait 5s", "raise"])
    moments = random.Random(7)

    async def main():
        ends = Counter()

        async def call(number):
            try:
                await one(number)
                ends["sent", number] += 1
            except asyncio.CancelledError:
                ends["cancelled", number] += 1

        tasks = [asyncio.create_task(call(n)) for n in range(500)]
        loop = asyncio.get_running_loop()
        for task in tasks:
            if moments.random() < 0.5:
                loop.call_later(moments.random() * 0.8, task.cancel)
        await asyncio.gather(*tasks)
        return ends

    ends = asyncio.run(main())
    one.publisher.close(10)
    arrived = Counter(server.queues[QUEUE])
    sent = {b"%d" % number for end, number in ends if end == "sent"}
    assert sent <= set(arrived)
    assert max(arrived.values()) == 1
    ledger = own.ledger()
    assert ledger.balanced
    assert ledger.in_flight == 0
    assert ledger.delivered == len(arrived)
    assert len(arrived) < 500
    assert len(ends) == 500


def test_where_no_rule_bounds_them_they_wait_for_room_on_the_loop(server):
    """A publisher's own bound: no thread is blocked, and cancelled ones are not sent."""
    own = Shield({"rules": []})

    @publisher(server.url, routing_key=QUEUE, shield=own)
    async def order(number):
        return b"%d" % number

    room = order.publisher.sender.limit
    for _ in range(10_000):
        room.take(1, at_once=False)

    async def main():
        tasks = [asyncio.create_task(order(n)) for n in range(3)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in tasks)
        tasks[0].cancel()
        await cancelled(tasks[0])
        room.release(1)
        await asyncio.wait({tasks[1]}, timeout=10)
        room.release(1)
        await asyncio.gather(*tasks[1:])

    asyncio.run(main())
    order.publisher.close(5)
    assert server.queues[QUEUE] == [b"1", b"2"]
    assert own.ledger().failed == 1


def test_what_waits_for_its_connection_and_is_cancelled_is_not_sent(server):
    """It stands in the write thread's queue: not written, not sent, its charge given back."""
    own = Shield({"rules": []})

    @publisher("amqp://guest:guest@127.0.0.1:1/%2F", routing_key=QUEUE, shield=own)
    async def order(number):
        return b"%d" % number

    async def main():
        task = asyncio.create_task(order(1))
        await asyncio.sleep(0.2)
        task.cancel()
        await cancelled(task)
        order.publisher.flush(10)

    asyncio.run(main())
    assert own.ledger().failed == 1
    assert own.ledger().in_flight == 0
    order.publisher.close(0)


def test_its_fate_is_told(order):
    """`submit` returns a future that `shield.fate` knows."""
    one, _ = order(quota=quota("1/h"), over_limit=["drop"])

    async def main():
        first, second = await one.submit(0), await one.submit(1)
        return shield.fate(first), shield.fate(second)

    assert asyncio.run(main()) == ("sent", "dropped")
