"""What a real RabbitMQ tells its publisher, and the policies that act on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pika
import pytest
from pika import BasicProperties
from pika.exceptions import NackError, UnroutableError

import shield
from integration.brokers import RabbitMQ
from integration.event_loop import EventLoop
from integration.queues import Queues
from shield import SettingsError, Shield
from shield.testing import ManualClock
from shield_rabbitmq import (
    BlockingConnection,
    NackedError,
    Publisher,
    RabbitMQOverLimitError,
    ReturnedError,
    SelectConnection,
    shielded,
)
from tests.eventually import eventually

pytestmark = pytest.mark.alone

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
        return {"match": queue, "blocked": "over_limit", "over_limit": [*chain] or ["raise"]}

    publisher = make(
        rule(drops, "drop"),
        rule(raises, "raise"),
        rule(waits, "wait 60s", "raise"),
        rule(overflows, f"overflow /{aside}", "drop"),
    )
    publisher.publish("", drops, b"before").result(60)
    assert publisher.signals.blocked is False
    clear = alarm()
    eventually(lambda: dropped(publisher.publish("", drops, b"during", PERSISTENT)))
    assert publisher.signals.blocked
    begun = time.monotonic()
    for _ in range(1000):
        assert dropped(publisher.publish("", drops, b"during"))
        assert dropped(publisher.publish("", overflows, b"during"))
        with pytest.raises(RabbitMQOverLimitError) as caught:
            publisher.publish("", raises, b"during")
    assert time.monotonic() - begun < 30
    assert (caught.value.policy, caught.value.reason) == ("blocked", "blocked by the broker")
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(publisher.publish, "", waits, b"%d" % n) for n in range(4)]
        eventually(lambda: publisher.shield.engine.lines)
        assert not any(each.done() for each in waiting)
        clear()
        for each in waiting:
            each.result(60).result(20)
    assert publisher.signals.blocked is False
    for queue in (drops, raises, overflows):
        future = publisher.publish("", queue, b"after")
        future.result(60)
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
    future.result(60)
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
        publisher.publish("", bound, b"%d" % n).result(60)
    assert publisher.signals.answers.share("returns", publisher.signals.now()) == 0.0
    for _ in range(11):
        error = publisher.publish("", "nowhere", b"lost").exception(10)
        assert isinstance(error, ReturnedError)
    with pytest.raises(RabbitMQOverLimitError) as caught:
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
    publisher.publish("", queue, b"first").result(60)
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
        future.result(60)
    eventually(lambda: publisher.signals.window_used == 0.0)
    publisher.publish("", queue, b"last").result(60)
    assert queues.depth(queue) == 22


def test_shedding_starts_when_the_queue_is_over_its_limit_and_ends(make, queues, freeze):
    """Threads bring more than a frozen broker takes: bounded, shed, and over when it goes on.

    The publisher's own bound is below the queue's and must not block anyone.
    """
    queue = queues.queue()
    rule = {"match": "*", "client_queue": {"messages": 50}, "over_limit": "drop"}
    publisher = make(rule, window=10, max_messages=20)
    publisher.publish("", queue, b"first").result(60)
    go_on = freeze()

    def work(_: int) -> list[Any]:
        return [publisher.publish("", queue, b"x" * 10, PERSISTENT) for _ in range(100)]

    with ThreadPoolExecutor(4) as pool:
        futures = [future for made in pool.map(work, range(4)) for future in made]
    shed = sum(dropped(future) for future in futures)
    eventually(lambda: publisher.signals.in_flight == 10)
    waits = publisher.signals.queue_messages
    assert waits is not None
    assert 50 - 10 <= waits <= 50 + 4  # the window's may have left when all had been offered
    assert publisher.signals.queue_bytes == waits * 10
    assert 400 - shed == waits + 10
    go_on()
    for future in futures:
        future.result(60)
    eventually(lambda: publisher.signals.queue_messages == 0)
    future = publisher.publish("", queue, b"last")
    future.result(60)
    assert shield.fate(future) == "sent"
    assert publisher.shield.ledger().dropped == shed
    assert queues.depth(queue) == 402 - shed


def test_a_broker_that_answers_slower_gets_less_at_once(make, queues, freeze):
    """Frozen for a while, it is far over its baseline: 20 at once, not the whole window."""
    queue = queues.queue()
    latency = {"over_baseline": 30.0, "min_in_flight": 20}
    publisher = make({"match": "*", "confirm_latency": latency, "over_limit": "drop"})
    for n in range(50):
        publisher.publish("", queue, b"%d" % n).result(60)
    go_on = freeze()
    futures = [publisher.publish("", queue, b"slow") for _ in range(200)]
    assert not any(dropped(future) for future in futures)
    signals = publisher.signals
    time.sleep(50 * signals.latency.baseline)
    go_on()
    for future in futures:
        future.result(60)
    assert signals.latency.over_baseline(signals.now()) > 30
    go_on = freeze()
    futures = [publisher.publish("", queue, b"less") for _ in range(200)]
    assert sum(not dropped(future) for future in futures) == 20
    go_on()
    for future in futures:
        future.result(60)


# --- channels of their users' ---------------------------------------------------------------------


@pytest.fixture
def connect(own_rabbitmq: RabbitMQ) -> Iterator[Callable[..., Any]]:
    """Open blocking connections; they are closed at the end."""
    made: list[Any] = []

    def connect(kind: Any = BlockingConnection, **more: Any) -> Any:
        made.append(kind(pika.URLParameters(own_rabbitmq.address), **more))
        return made[-1]

    yield connect
    for one in made:
        one.close()


@pytest.fixture
def run_loop(own_rabbitmq: RabbitMQ) -> Iterator[Callable[..., EventLoop]]:
    """Run event loops; they are ended when the test is."""
    made: list[EventLoop] = []

    def run_loop(own: Shield, **more: Any) -> EventLoop:
        def connect(*args: Any, **named: Any) -> Any:
            return SelectConnection(*args, shield=own, **named)

        made.append(EventLoop(connect, own_rabbitmq.address, **more))
        return made[-1]

    yield run_loop
    for loop in made:
        loop.close()


def acting(*chain: str, **policies: Any) -> Shield:
    return Shield(
        {"rules": [{"name": "acts", "match": "*", **policies, "over_limit": [*chain] or ["raise"]}]}
    )


def test_a_blocking_channel_that_only_publishes_hears_of_the_alarm(connect, queues, alarm):
    """By the drop-in connection and by a decorated function, with and without confirms.

    No chain waits for what its own thread would have to hear. When the alarm is over all go on,
    and what was written before it is there.
    """
    queue, own = queues.queue(), acting("wait 60s", "drop", blocked="over_limit")
    decorated = connect(pika.BlockingConnection).channel()

    @shielded(shield=own)
    def publish(channel: Any) -> str:
        channel.basic_publish("", queue, b"", PERSISTENT)
        return shield.fate(channel)

    channels = [connect(shield=own).channel(), decorated]
    assert [publish(channel) for channel in channels] == ["sent", "sent"]
    assert [channel.shield_signals.blocked for channel in channels] == [False, False]
    clear = alarm()
    for channel in channels:
        eventually(lambda channel=channel: publish(channel) == "dropped")
        assert channel.shield_signals.blocked
    begun = time.monotonic()
    assert {publish(channel) for channel in channels for _ in range(200)} == {"dropped"}
    assert time.monotonic() - begun < 5
    clear()
    for channel in channels:
        eventually(lambda channel=channel: publish(channel) == "sent")
        assert channel.shield_signals.blocked is False
    ledger = own.ledger()
    assert (ledger.offered, ledger.in_flight) == (ledger.delivered + ledger.dropped, 0)
    assert ledger.drops == {("acts", "blocked", "blocked by the broker"): ledger.dropped}
    eventually(lambda: queues.depth(queue) == ledger.delivered)


def test_an_event_loops_channel_hears_of_the_alarm(run_loop, queues, alarm):
    """As it comes in; the user's own callback for it is called as well."""
    queue, own, heard = queues.queue(), acting("drop", blocked="over_limit"), []
    loop = run_loop(own)
    loop.call(loop.connection.add_on_connection_blocked_callback, lambda *_: heard.append(1))

    def publish() -> str:
        loop.channel.basic_publish("", queue, b"", PERSISTENT)
        return shield.fate(loop.channel)

    assert loop.call(publish) == "sent"
    clear = alarm()
    eventually(lambda: loop.call(publish) == "dropped")
    assert heard == [1]
    clear()
    eventually(lambda: loop.call(publish) == "sent")
    ledger = own.ledger()
    eventually(lambda: queues.depth(queue) == ledger.delivered)


def test_a_blocking_channel_with_confirms_sheds_when_it_is_nacked(connect, queues):
    """Each publish raised what the broker answered; the rule acts on too many of them."""
    clock = ManualClock()
    full = queues.queue(x_max_length=1, x_overflow="reject-publish")
    rule = {"match": "*", "nacks": {"above": "20%", "minimum": 20}, "over_limit": "drop"}
    own = Shield({"rules": [rule]}, clock=clock)
    channel = connect(shield=own).channel()
    channel.confirm_delivery()
    nacked = 0
    for _ in range(30):
        try:
            channel.basic_publish("", full, b"")
        except NackError:
            nacked += 1
    ledger = own.ledger()
    assert nacked == ledger.failed > 10
    assert ledger.offered == ledger.delivered + ledger.failed + ledger.dropped == 30
    assert shield.fate(channel) == "dropped"
    queues.take(full)
    clock.advance(10)
    channel.basic_publish("", full, b"anew")
    assert shield.fate(channel) == "sent"


def test_a_blocking_channel_with_confirms_tells_what_found_no_queue(connect, queues):
    """Mandatory messages that were returned; the next one is its caller's."""
    own = acting("raise", returns={"above": "50%", "minimum": 10})
    channel = connect(shield=own).channel()
    channel.confirm_delivery()
    for _ in range(10):
        with pytest.raises(UnroutableError):
            channel.basic_publish("", "nowhere", b"", mandatory=True)
    with pytest.raises(RabbitMQOverLimitError) as caught:
        channel.basic_publish("", queues.queue(), b"")
    assert caught.value.policy == "returns"
    assert own.ledger().failed == 10


def test_an_event_loops_channel_with_confirms_sheds_when_it_is_nacked(run_loop, queues):
    """The acks and nacks that are counted are those of the signals; so is what is in flight."""
    full = queues.queue(x_max_length=1, x_overflow="reject-publish")
    own = acting("drop", nacks={"above": "20%", "minimum": 20})
    loop = run_loop(own, confirms=True)
    for _ in range(30):
        loop.call(loop.channel.basic_publish, "", full, b"")
    eventually(lambda: loop.channel.shield_signals.in_flight == 0)
    signals = loop.channel.shield_signals
    assert signals.answers.share("nacks", signals.now()) > 0.2
    assert signals.latency.recent > 0
    loop.call(loop.channel.basic_publish, "", full, b"")
    assert shield.fate(loop.channel) == "dropped"
    ledger = own.ledger()
    assert (ledger.failed + ledger.delivered + ledger.dropped, ledger.in_flight) == (31, 0)


def test_slow_confirms_hold_an_event_loop_back(run_loop, queues, freeze):
    """Frozen for half a second the broker is far over its baseline: then 20 at once, no more."""
    queue = queues.queue()
    own = acting("drop", confirm_latency={"over_baseline": 30.0, "min_in_flight": 20})
    loop = run_loop(own, confirms=True)

    def publish(messages: int) -> list[str]:
        fates = []
        for _ in range(messages):
            loop.channel.basic_publish("", queue, b"")
            fates.append(shield.fate(loop.channel))
        return fates

    def unanswered() -> int:
        return own.ledger().in_flight

    for _ in range(30):
        loop.call(publish, 1)
        eventually(lambda: unanswered() == 0)
    go_on = freeze()
    assert loop.call(publish, 200) == ["sent"] * 200
    time.sleep(0.5)
    go_on()
    eventually(lambda: unanswered() == 0)
    go_on = freeze()
    assert loop.call(publish, 200).count("sent") == 20
    go_on()
    eventually(lambda: unanswered() == 0)
    assert queues.depth(queue) == own.ledger().delivered == 250


@pytest.mark.parametrize("policy", [{"nacks": "20%"}, {"returns": "50%"}, {"confirm_window": {}}])
def test_a_rule_that_needs_confirms_says_so_where_there_are_none(connect, queues, policy):
    """Before anything is published, and only where it covers that; then nothing was offered."""
    queue, other = queues.queue(), queues.queue()
    own = Shield({"rules": [{"name": "needs", "match": queue, **policy}]})
    channel = connect(shield=own).channel()
    with pytest.raises(SettingsError, match=r"rule 'needs': .* this channel does not tell"):
        channel.basic_publish("", queue, b"")
    channel.basic_publish("", other, b"")
    assert (own.ledger().offered, own.ledger().delivered) == (1, 1)
    eventually(lambda: queues.depth(other) == 1)
    assert queues.depth(queue) == 0
