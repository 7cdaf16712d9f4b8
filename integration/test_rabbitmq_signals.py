"""What a real RabbitMQ tells its publisher, and the policies that act on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pika import BasicProperties

import shield
from integration.brokers import RabbitMQ
from integration.queues import Queues
from shield import Shield
from shield.testing import ManualClock
from shield_rabbitmq import NackedError, OverLimitError, Publisher, ReturnedError

PERSISTENT = BasicProperties(delivery_mode=2)


@pytest.fixture(scope="module")
def own_rabbitmq(private_rabbitmq) -> RabbitMQ:
    """A RabbitMQ to be broken; every test leaves it running."""
    return private_rabbitmq()


@pytest.fixture
def queues(own_rabbitmq: RabbitMQ) -> Iterator[Queues]:
    with Queues(own_rabbitmq.address) as queues:
        yield queues


@pytest.fixture
def make(own_rabbitmq: RabbitMQ) -> Iterator[Callable[..., Publisher]]:
    """Make publishers that are closed at the end; then all is accounted for and nothing waits."""
    made: list[Publisher] = []
    before = set(threading.enumerate())  # one may be there where an earlier test has failed

    def make(*rules: dict[str, Any], clock: Any = None, **more: Any) -> Publisher:
        chosen = Shield({"rules": [*rules]}, clock=clock)
        made.append(Publisher(own_rabbitmq.address, shield=chosen, **more))
        return made[-1]

    yield make
    for one in made:
        one.close(10)
        ledger = one.shield.ledger()
        assert ledger.balanced
        assert ledger.in_flight == 0
        assert (one.signals.queue_messages, one.signals.queue_bytes) == (0, 0)
        assert one.signals.in_flight == 0
        assert one.signals.blocked is None
    names = [thread.name for thread in set(threading.enumerate()) - before]
    assert "shield-rabbitmq" not in names


@pytest.fixture
def alarm(own_rabbitmq: RabbitMQ) -> Iterator[Callable[[], object]]:
    """Raise the memory alarm, and clear it with what raising it returns."""

    def clear() -> str:
        return own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")

    def raise_it() -> Callable[[], str]:
        own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
        return clear

    yield raise_it
    clear()


@pytest.fixture
def freeze(own_rabbitmq: RabbitMQ) -> Iterator[Callable[[], Callable[[], None]]]:
    """Freeze the broker, and let it go on with what freezing returns."""

    def freeze() -> Callable[[], None]:
        own_rabbitmq.pause()
        return own_rabbitmq.resume

    yield freeze
    own_rabbitmq.resume()


def eventually(is_so: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def dropped(future: Any) -> bool:
    return shield.fate(future) == "dropped"


# --- blocked --------------------------------------------------------------------------------------


def test_messages_of_a_blocked_connection_take_the_chain(make, queues, alarm):
    """A program that only publishes hears of the alarm; each chain acts, none hangs; then all go.

    What waits in line is sent when the alarm is over, woken by `connection.unblocked`.
    """
    drops, raises, waits, overflows = (queues.queue() for _ in range(4))
    aside = queues.queue()

    def rule(queue: str, *chain: str) -> dict[str, Any]:
        return {"match": queue, "blocked": "over_limit", "over_limit": [*chain]}

    publisher = make(
        rule(drops, "drop"),
        rule(raises, "raise"),
        rule(waits, "wait 60s", "raise"),
        rule(overflows, f"overflow /{aside}", "drop"),
    )
    publisher.publish("", drops, b"before").result(10)
    assert publisher.signals.blocked is False
    clear = alarm()
    eventually(lambda: dropped(publisher.publish("", drops, b"during", PERSISTENT)))
    assert publisher.signals.blocked
    begun = time.monotonic()
    for _ in range(1000):
        assert dropped(publisher.publish("", drops, b"during"))
        assert dropped(publisher.publish("", overflows, b"during"))
        with pytest.raises(OverLimitError) as caught:
            publisher.publish("", raises, b"during")
    assert time.monotonic() - begun < 30
    assert (caught.value.policy, caught.value.reason) == ("blocked", "blocked by the broker")
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(publisher.publish, "", waits, b"%d" % n) for n in range(4)]
        eventually(lambda: publisher.shield.lines)
        assert not any(each.done() for each in waiting)
        clear()
        for each in waiting:
            each.result(20).result(20)
    assert publisher.signals.blocked is False
    for queue in (drops, raises, overflows):
        future = publisher.publish("", queue, b"after")
        future.result(10)
        assert shield.fate(future) == "sent"
    assert sorted(queues.bodies(waits)) == [b"0", b"1", b"2", b"3"]
    assert queues.bodies(aside) == []
    ledger = publisher.shield.ledger()
    assert (ledger.raised, ledger.overflowed, ledger.failed) == (1000, 0, 0)
    assert ledger.delivered == ledger.offered - ledger.dropped - ledger.raised


# --- nacks and returns ----------------------------------------------------------------------------


def test_a_queue_that_refuses_is_seen_and_shed(make, queues):
    """Nacks beyond a fifth of the answers: the chain acts; ten seconds later it is tried anew."""
    clock = ManualClock()
    full = queues.queue(x_max_length=5, x_overflow="reject-publish")
    rule = {"match": full, "nacks": {"above": "20%", "minimum": 20}, "over_limit": "drop"}
    publisher = make(rule, clock=clock)
    errors = [publisher.publish("", full, b"%d" % n).exception(10) for n in range(50)]
    nacked = [error for error in errors if error is not None]
    assert {type(error) for error in nacked} == {NackedError}
    assert len(errors) > len(nacked) > 10
    assert publisher.signals.answers.share("nacks", clock.now()) > 0.2
    assert dropped(publisher.publish("", full, b"shed"))
    queues.take(full)
    clock.advance(10)
    future = publisher.publish("", full, b"anew")
    future.result(10)
    assert shield.fate(future) == "sent"
    ledger = publisher.shield.ledger()
    assert ledger.delivered + ledger.failed + ledger.dropped == 52
    assert queues.bodies(full) == [b"anew"]


def test_messages_that_find_no_queue_are_seen_and_raised(make, queues):
    """Returns beyond half of the answers: the next message is its caller's again."""
    bound = queues.queue()
    rule = {"match": "*", "returns": {"above": "50%", "minimum": 10}}
    publisher = make(rule)
    for n in range(10):
        publisher.publish("", bound, b"%d" % n).result(10)
    assert publisher.signals.answers.share("returns", publisher.signals.now()) == 0.0
    for _ in range(11):
        error = publisher.publish("", "nowhere", b"lost").exception(10)
        assert isinstance(error, ReturnedError)
    with pytest.raises(OverLimitError) as caught:
        publisher.publish("", bound, b"next")
    assert caught.value.policy == "returns"
    assert 0 < caught.value.retry_after <= 10
    ledger = publisher.shield.ledger()
    assert (ledger.delivered, ledger.failed, ledger.raised) == (10, 11, 1)


# --- window, queue, latency -----------------------------------------------------------------------


def test_a_window_that_fills_delays_and_then_refuses(make, queues, freeze):
    """A frozen broker: the first half at once, the second ever slower, the rest takes the chain."""
    queue = queues.queue()
    clock = ManualClock()
    window = {"above": "50%", "delay": "200ms", "limit": "100%"}
    rule = {"match": "*", "confirm_window": window, "over_limit": "drop"}
    publisher = make(rule, window=20, clock=clock)
    publisher.publish("", queue, b"first").result(10)
    go_on = freeze()
    took_s, futures = [], []
    for n in range(20):
        begun_s = clock.now()
        futures.append(publisher.publish("", queue, b"%d" % n))
        took_s.append(clock.now() - begun_s)
        eventually(lambda n=n: publisher.signals.in_flight == n + 1)
    assert publisher.signals.window_used == 1.0
    assert took_s[:11] == [0.0] * 11
    assert took_s[11:] == pytest.approx([0.02 * n for n in range(1, 10)], abs=0.001)
    assert dropped(publisher.publish("", queue, b"refused"))
    go_on()
    for future in futures:
        future.result(20)
    eventually(lambda: publisher.signals.window_used == 0.0)
    publisher.publish("", queue, b"last").result(10)
    assert queues.depth(queue) == 22


def test_shedding_starts_when_the_queue_is_over_its_limit_and_ends(make, queues, freeze):
    """Threads bring more than a frozen broker takes: bounded, shed, and over when it goes on.

    The publisher's own bound is below the queue's and must not block anyone.
    """
    queue = queues.queue()
    rule = {"match": "*", "queue": {"messages": 50}, "over_limit": "drop"}
    publisher = make(rule, window=10, max_messages=20)
    publisher.publish("", queue, b"first").result(10)
    go_on = freeze()

    def work(_: int) -> list[Any]:
        return [publisher.publish("", queue, b"x" * 10, PERSISTENT) for _ in range(100)]

    with ThreadPoolExecutor(4) as pool:
        futures = [future for made in pool.map(work, range(4)) for future in made]
    shed = sum(dropped(future) for future in futures)
    waits = publisher.signals.queue_messages
    assert waits is not None
    assert 50 <= waits <= 50 + 4
    assert publisher.signals.queue_bytes == waits * 10
    assert publisher.signals.in_flight == 10
    assert 400 - shed == waits + 10
    go_on()
    for future in futures:
        future.result(20)
    eventually(lambda: publisher.signals.queue_messages == 0)
    future = publisher.publish("", queue, b"last")
    future.result(10)
    assert shield.fate(future) == "sent"
    assert publisher.shield.ledger().dropped == shed
    assert queues.depth(queue) == 402 - shed


def test_a_broker_that_answers_slower_gets_less_at_once(make, queues, freeze):
    """Frozen for a while, it is far over its baseline: 20 at once, not the whole window."""
    queue = queues.queue()
    latency = {"over_baseline": 30.0, "min_in_flight": 20}
    publisher = make({"match": "*", "confirm_latency": latency, "over_limit": "drop"})
    for n in range(50):
        publisher.publish("", queue, b"%d" % n).result(10)
    go_on = freeze()
    futures = [publisher.publish("", queue, b"slow") for _ in range(200)]
    assert not any(dropped(future) for future in futures)
    signals = publisher.signals
    time.sleep(50 * signals.latency.baseline)
    go_on()
    for future in futures:
        future.result(20)
    assert signals.latency.over_baseline(signals.now()) > 30
    go_on = freeze()
    futures = [publisher.publish("", queue, b"less") for _ in range(200)]
    assert sum(not dropped(future) for future in futures) == 20
    go_on()
    for future in futures:
        future.result(20)
