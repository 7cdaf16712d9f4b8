"""Shielded channels, connections and functions on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from pika import BasicProperties
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelClosedByBroker,
    NackError,
    ShortStringTooLong,
    UnroutableError,
    UnsupportedAMQPFieldException,
)

import shield
import shield_rabbitmq
from integration.brokers import RabbitMQ
from integration.event_loop import EventLoop
from integration.queues import Queues
from shield import Shield
from shield.action import Keep
from shield.chain.retained import Retained
from shield.chain.runner import wait_in_line
from shield.testing import ManualClock
from shield_rabbitmq import BlockingConnection, SelectConnection, shielded
from tests.contracts.adapter import Adapter, AdapterContract, HoldBack, counts, rule
from tests.eventually import eventually


@pytest.fixture
def queues(rabbitmq: RabbitMQ) -> Iterator[Queues]:
    with Queues(rabbitmq.address) as queues:
        yield queues


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A relay ends when the connections that used it are closed."""
    before = set(threading.enumerate())
    yield
    eventually(
        lambda: not [t for t in threading.enumerate() if "shield" in t.name and t not in before]
    )


def limited(*chain: str, match: str = "*", burst: int = 1, **more: Any) -> Shield:
    quota = {"rate": "1/h", "burst": burst}
    one = {"match": match, "quota": quota, "over_limit": [*chain] or ["raise"]}
    return Shield({"rules": [one]}, clock=ManualClock(), **more)


# --- the contract of all adapters -----------------------------------------------------------------


class ChannelAdapter(Adapter):
    """What both kinds share: a publisher is a function that returns the channel of a thread."""

    over_limit_error = AMQPError
    refusals = (
        *Adapter.refusals,
        ShortStringTooLong,
        UnsupportedAMQPFieldException,
        struct.error,
    )

    def __init__(self, url: str) -> None:
        self._queues = Queues(url)
        self._held: dict[str, list[Any]] = {}
        self._queue_of: dict[str, str] = {}

    def destination(self):
        exchange = self._queues.exchange()
        queue = self._queues.queue(exchange, "created")
        self._queue_of[f"{exchange}/created"] = queue
        return f"{exchange}/created"

    def arrived(self, publisher, destination):
        held = self._held.setdefault(destination, [])
        publisher.settled()
        for stored in self._queues.take(self._queue_of[destination]):
            headers = stored.properties.headers or {}
            held.append((stored.body, {key: str(value) for key, value in headers.items()}))
        return held

    def publish(self, publisher, destination, body, headers):
        exchange, _, routing_key = destination.partition("/")
        properties = BasicProperties(headers=headers)
        return publisher.publish(exchange, routing_key, body, properties)

    def result(self, publisher, future):
        return future

    def close(self, publisher):
        publisher.close()

    def wrong_calls(self, publisher, destination):
        return [
            lambda: publisher.publish(destination, "created", 1),
            lambda: publisher.publish(destination, "created", None),
            lambda: publisher.publish(destination, None, b"body"),
            lambda: publisher.publish(destination, "created", b"body", {"headers": {}}),
            lambda: publisher.publish(destination, "created", b"body", BasicProperties(headers=1)),
            lambda: publisher.publish(destination, "k" * 256, b"body"),
            lambda: publisher.publish("e" * 256, "created", b"body"),
            *(
                lambda headers=headers: publisher.publish(
                    destination, "created", b"body", BasicProperties(headers=headers)
                )
                for headers in ({"n": 0.5}, {"n": [{1}]}, {"n" * 256: 1}, {"n": 2**64}, {1: 1})
            ),
            lambda: publisher.publish(destination, "created", b"", BasicProperties(priority=256)),
            lambda: publisher.publish(destination, "created", b"", BasicProperties(timestamp=0.5)),
        ]

    def unreachable(self):
        return "not-there/created"

    def end(self) -> None:
        self._queues.close()


class Blocking:
    """BlockingConnections, one for each thread, as their users have them."""

    def __init__(self, url: str, chosen: Shield, name: str, confirms: bool) -> None:
        self._arguments = url, chosen, name, confirms
        self._own = threading.local()
        self._all: list[Any] = []

    def publish(self, *args: Any) -> object:
        if not hasattr(self._own, "channel"):
            url, chosen, name, confirms = self._arguments
            connection = BlockingConnection(
                pika.URLParameters(url), shield=chosen, shield_producer=name
            )
            self._own.channel = connection.channel()
            if confirms:
                self._own.channel.confirm_delivery()
            self._all.append(connection)
        assert self._own.channel.basic_publish(*args) is None
        return SimpleNamespace(shield_fate=shield.fate(self._own.channel))

    def settled(self) -> None:
        """Let the broker take what was written: the answer to a request comes after it."""
        if hasattr(self._own, "channel"):
            self._own.channel.basic_qos()

    def close(self) -> None:
        for connection in self._all:
            if connection.is_open:
                connection.close()


class BlockingAdapter(ChannelAdapter):
    confirms = False

    def publisher(self, chosen, name):
        return Blocking(self._queues.url, chosen, name, self.confirms)


class ConfirmingAdapter(BlockingAdapter):
    confirms = True


class Evented:
    """One SelectConnection, with the user's confirms, on a loop's thread."""

    def __init__(self, url: str, chosen: Shield, name: str) -> None:
        def connect(*args: Any, **kwargs: Any) -> SelectConnection:
            return SelectConnection(*args, shield=chosen, shield_producer=name, **kwargs)

        self._shield = chosen
        self.loop = EventLoop(connect, url, confirms=True)

    def publish(self, *args: Any) -> object:
        return self.loop.call(self._publish, *args)

    def _publish(self, *args: Any) -> object:
        assert self.loop.channel.basic_publish(*args) is None
        return SimpleNamespace(shield_fate=shield.fate(self.loop.channel))

    def settled(self) -> None:
        eventually(lambda: self._shield.ledger().in_flight == 0)

    def close(self) -> None:
        self.settled()
        self.loop.close()


class EventedAdapter(ChannelAdapter):
    def publisher(self, chosen, name):
        return Evented(self._queues.url, chosen, name)

    def result(self, publisher, future):
        publisher.settled()
        return future


class TestBlockingChannel(AdapterContract):
    @pytest.fixture
    def adapter(self, rabbitmq):
        adapter = BlockingAdapter(rabbitmq.address)
        yield adapter
        adapter.end()


class TestConfirmingBlockingChannel(AdapterContract):
    @pytest.fixture
    def adapter(self, rabbitmq):
        adapter = ConfirmingAdapter(rabbitmq.address)
        yield adapter
        adapter.end()


class TestSelectChannel(AdapterContract):
    @pytest.fixture
    def adapter(self, rabbitmq):
        adapter = EventedAdapter(rabbitmq.address)
        yield adapter
        adapter.end()

    def test_wait_sends_it_when_its_time_has_come(self, use, destination):
        """Not on an event loop, which is never blocked: `wait` declines."""
        clock = ManualClock()
        one = use(rule(destination, "wait 2h", "drop"), clock=clock)
        one.publish_now(destination, b"1")
        assert shield.fate(one.publish(destination, b"2")) == "dropped"
        assert clock.waits == 0

    def test_retry_asks_again_until_it_is_admitted(self, use, destination):
        """Nor for a retry: it declines at once."""
        one = use(rule(destination, "retry 2", "drop"), clock=ManualClock())
        one.publish_now(destination, b"1")
        assert shield.fate(one.publish(destination, b"2")) == "dropped"
        assert one.shield.clock.waits == 0

    def test_a_wait_for_room_ends_with_an_answer(self, use, destination):
        """Nor for room: the chain goes on at once."""
        bound = {"match": destination, "in_flight": {"messages": 1}, "over_limit": ["wait 1h"]}
        one = use(bound)

        def publish_two() -> None:
            one.publisher._publish(*destination.split("/"), b"1")
            one.publisher._publish(*destination.split("/"), b"2")

        with pytest.raises(shield.OverLimitError):
            one.publisher.loop.call(publish_two)
        one.publisher.settled()
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "raised": 1}

    def test_a_delay_that_a_policy_asks_for_is_waited_before_the_send(self, use, destination):
        """Not on an event loop: what is admitted is published at once."""
        held = rule(destination) | {"hold_back": {"seconds": 0.25}}
        one = use(held, plugins=[HoldBack])
        one.publish_now(destination, b"1")
        assert one.shield.clock.waits == 0
        assert one.bodies(destination) == [b"1"]

    def test_an_overflow_that_fails_hands_on(self, use, destination, adapter):
        """After the publish has returned, on the relay's thread; the ledger tells how it ended."""
        one = use(rule(destination, f"overflow {adapter.unreachable()}", "drop"))
        one.publish_now(destination, b"1")
        one.publish_now(destination, b"2")
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "dropped": 1}

    def test_an_overflow_that_fails_with_nothing_behind_it_raises(
        self, use, destination, adapter, caplog
    ):
        """Its caller has gone on: it counts as raised, and the log has it."""
        one = use(rule(destination, f"overflow {adapter.unreachable()}"))
        one.publish_now(destination, b"1")
        one.publish_now(destination, b"2")
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "raised": 1}
        eventually(lambda: "was not sent: rule 'rule-1': over the limit" in caplog.text)


# --- what pika's users rely on: BlockingConnection ------------------------------------------------


@pytest.fixture
def connect(rabbitmq: RabbitMQ) -> Iterator[Callable[..., Any]]:
    """Make BlockingConnections of ours, or of the class given; they are closed at the end."""
    made: list[Any] = []

    def connect(kind: Any = BlockingConnection, **more: Any) -> Any:
        made.append(kind(pika.URLParameters(rabbitmq.address), **more))
        return made[-1]

    yield connect
    for connection in made:
        if connection.is_open:
            connection.close()


@pytest.mark.smoke
def test_a_drop_in_connection_makes_shielded_channels(connect, queues):
    """`isinstance`, `with`, `connection` and everything else are pika's; the quota is ours."""
    queue = queues.queue()
    own = limited("drop", burst=2)
    with connect(shield=own, shield_producer="shop") as connection:
        assert isinstance(connection, pika.BlockingConnection)
        with connection.channel() as channel:
            assert isinstance(channel, BlockingChannel)
            assert channel.connection is connection
            assert shielded(channel) is channel
            for body in (b"1", "2", b"3"):
                channel.basic_publish("", queue, body)
        assert channel.is_closed
    assert connection.is_closed
    assert queues.bodies(queue) == [b"1", b"2"]


def test_a_channel_number_and_a_list_of_parameters_go_through(rabbitmq):
    """The first of the list that works is taken."""
    nowhere = pika.ConnectionParameters("127.0.0.1", 1)
    connection = BlockingConnection([nowhere, pika.URLParameters(rabbitmq.address)], shield={})
    assert connection.channel(channel_number=7).channel_number == 7
    assert connection.channel(9).channel_number == 9
    connection.close()


def test_a_users_own_subclass_goes_on_working(connect, queues):
    """It is handed what it was handed before, and its channels are shielded."""

    class Mine(BlockingConnection):
        def __init__(self, parameters):
            super().__init__(parameters, shield=limited("drop"))
            self.opened = 0

        def channel(self, channel_number=None):
            self.opened += 1
            return super().channel(channel_number)

    queue = queues.queue()
    connection = connect(Mine)
    channel = connection.channel()
    for body in (b"1", b"2"):
        channel.basic_publish("", queue, body)
    channel.basic_qos()
    assert connection.opened == 1
    assert queues.bodies(queue) == [b"1"]


@pytest.mark.parametrize("kind", [pika.BlockingConnection, BlockingConnection])
def test_every_callback_is_handed_the_channel_that_its_user_holds(connect, queues, kind):
    """Consumer and return callbacks; what they publish is within the quota, too."""
    queue, replies = queues.queue(), queues.queue()
    own = limited("drop", burst=3)
    channel = shielded(connect(kind).channel(), shield=own)
    handed: dict[str, Any] = {}

    def consumed(it, method, properties, body):
        handed["consumer"] = it
        it.basic_ack(method.delivery_tag)
        for _ in range(5):
            it.basic_publish("", replies, body)
        it.stop_consuming()

    channel.add_on_return_callback(lambda it, *_: handed.update(returned=it))
    channel.basic_consume(queue, consumed)
    channel.basic_publish("", "no-such-queue", b"", mandatory=True)
    channel.basic_publish("", queue, b"x")
    channel.start_consuming()
    eventually(lambda: channel.connection.process_data_events(0.01) or "returned" in handed)
    channel.basic_qos()
    assert handed == {"consumer": channel, "returned": channel}
    assert queues.bodies(replies) == [b"x"]
    assert counts(own) == {"offered": 7, "delivered": 3, "dropped": 4}


def test_all_ways_to_consume_work_untouched(connect, queues):
    """`basic_get`, `consume` and its `cancel`, on one channel."""
    queue = queues.queue()
    channel = connect(shield={}).channel()
    for body in (b"1", b"2", b"3"):
        channel.basic_publish("", queue, body)
    _, _, first = channel.basic_get(queue, auto_ack=True)
    taken = []
    for method, _, body in channel.consume(queue):
        channel.basic_ack(method.delivery_tag)
        taken.append(body)
        if len(taken) == 2:
            break
    assert channel.cancel() == 0
    assert (first, taken) == (b"1", [b"2", b"3"])


def test_confirms_tell_how_a_message_ended(connect, queues):
    """Acked, returned, nacked: pika's own results and errors, and the ledger agrees."""
    full = queues.queue(x_max_length=0, x_overflow="reject-publish")
    own = Shield({})
    channel = connect(shield=own).channel()
    channel.confirm_delivery()
    channel.basic_publish("", queues.queue(), b"")
    with pytest.raises(UnroutableError):
        channel.basic_publish("", "no-such-queue", b"", mandatory=True)
    with pytest.raises(NackError):
        channel.basic_publish("", full, b"")
    assert counts(own) == {"offered": 3, "delivered": 1, "failed": 2}


@pytest.mark.parametrize("confirms", [False, True])
def test_a_missing_exchange_closes_the_channel_as_ever(connect, confirms):
    """The error is pika's; without confirms the first publish has been taken by then."""
    own = Shield({})
    channel = connect(shield=own).channel()
    if confirms:
        channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker):
        eventually(lambda: channel.basic_publish("not-there", "k", b""))
    assert counts(own)["failed"] == 1
    assert own.ledger().in_flight == 0


def test_a_cut_connection_leaves_nothing_open(rabbitmq, queues, proxy_to):
    """What was being published when it was cut is unknown, and counted."""
    proxy = proxy_to(rabbitmq.address)
    own = Shield({})
    connection = BlockingConnection(pika.URLParameters(proxy.url), shield=own)
    channel = connection.channel()
    channel.confirm_delivery()
    queue = queues.queue()
    threading.Timer(0.2, proxy.cut).start()
    with pytest.raises(AMQPConnectionError):
        eventually(lambda: channel.basic_publish("", queue, b""))
    ledger = own.ledger()
    assert ledger.balanced
    assert (ledger.failed, ledger.in_flight) == (1, 0)
    assert ledger.delivered <= queues.depth(queue) <= ledger.offered


def test_a_missing_overflow_exchange_leaves_the_channel_open(connect, queues):
    """It is asked for elsewhere; the chain goes on, and so does the channel."""
    queue = queues.queue()
    own = limited("overflow not-there", "raise")
    channel = connect(shield=own).channel()
    channel.basic_publish("", queue, b"1")
    with pytest.raises(shield.OverLimitError) as caught:
        channel.basic_publish("", queue, b"2")
    assert isinstance(caught.value.__cause__, shield_rabbitmq.ExchangeError)
    channel.basic_qos()
    assert queues.bodies(queue) == [b"1"]


class Shelf:
    """A plugin whose action `shelve` keeps messages until a test takes them down."""

    def __init__(self, fate: str, keeper: Callable[[Retained], None] | None = None) -> None:
        self.kept: list[Retained] = []
        self.step = Keep(fate, keeper or self.kept.append)

    @shield.hookimpl
    def shield_actions(self):
        step = self.step

        class Shelve(shield.Action):
            def step(self, over):
                return step

        return {"shelve": Shelve}


def test_what_is_buffered_comes_back_through_the_relay(connect, queues):
    """Its publish has returned; another thread sends it, which could not use the channel."""
    queue, shelf = queues.queue(), Shelf("buffered")
    own = limited("shelve", plugins=[shelf])
    channel = connect(shield=own).channel()
    properties = BasicProperties(headers={"a": 1})
    for body in (b"1", b"2"):
        channel.basic_publish("", queue, body, properties)
    assert shield.fate(channel) == "buffered"
    (kept,) = shelf.kept
    properties.headers["a"] = 2
    permit = wait_in_line(kept.over, 7200)
    assert permit is not None
    with ThreadPoolExecutor(1) as pool:
        pool.submit(kept.send, permit).result(60)
    eventually(lambda: counts(own) == {"offered": 2, "delivered": 2})
    assert [(m.body, m.properties.headers["a"]) for m in queues.take(queue)] == [
        (b"1", 1),
        (b"2", 1),
    ]


def test_a_closing_connection_leaves_its_buffered_messages_time(rabbitmq, queues):
    """The relay sends them in order after the user's connection has gone; the rest goes on."""
    queue = queues.queue()
    quota = {"rate": "20/s", "burst": 1}
    rule = {"match": "*", "quota": quota, "over_limit": ["buffer", "drop"]}
    own = Shield({"rules": [rule]})
    connection = BlockingConnection(pika.URLParameters(rabbitmq.address), shield=own)
    channel = connection.channel()
    for number in range(8):
        channel.basic_publish("", queue, b"%d" % number)
    assert shield.fate(channel) == "buffered"
    assert own.ledger().buffered >= 6
    connection.close()
    eventually(lambda: counts(own) == {"offered": 8, "delivered": 8})
    assert queues.bodies(queue) == [b"%d" % number for number in range(8)]


def test_what_is_spooled_returns_once_it_is_durable(connect, queues):
    """And what could not be spooled goes on in the chain, and reaches its caller."""
    queue = queues.queue()

    def store(kept: Retained) -> None:
        assert kept.envelope().destination == queue
        full = kept.envelope().body == b"3"
        threading.Timer(0.05, kept.go_on if full else kept.stored).start()

    own = limited("shelve", "raise", plugins=[Shelf("spooled", store)])
    channel = connect(shield=own).channel()
    for body in (b"1", b"2"):
        channel.basic_publish("", queue, body)
    assert shield.fate(channel) == "spooled"
    assert counts(own) == {"offered": 2, "delivered": 1, "spooled": 1}
    with pytest.raises(shield.OverLimitError):
        channel.basic_publish("", queue, b"3")
    assert counts(own) == {"offered": 3, "delivered": 1, "spooled": 1, "raised": 1}


def test_a_caller_is_not_kept_for_ever(connect, queues, monkeypatch):
    """After its time the fate is unknown to it; the ledger has the message until that is known."""
    monkeypatch.setattr("shield_rabbitmq.channels.port.CONFIRMED_WITHIN_S", 0.1)
    queue, shelf = queues.queue(), Shelf("spooled")
    own = limited("shelve", plugins=[shelf])
    channel = connect(shield=own).channel()
    channel.basic_publish("", queue, b"")
    with pytest.raises(shield_rabbitmq.RabbitMQDeliveryUnknownError, match="it may arrive yet"):
        channel.basic_publish("", queue, b"")
    assert counts(own) == {"offered": 2, "delivered": 1, "in_flight": 1}
    shelf.kept[0].stored()
    assert counts(own) == {"offered": 2, "delivered": 1, "spooled": 1}


def test_an_event_loop_goes_on_while_a_message_is_spooled(run_loop, queues):
    """The publish returns at once, with the fate that is meant."""
    queue, shelf = queues.queue(), Shelf("spooled")
    own = limited("shelve", plugins=[shelf])
    loop = run_loop(own)

    def publish() -> str:
        for body in (b"1", b"2"):
            loop.channel.basic_publish("", queue, body)
        return shield.fate(loop.channel)

    assert loop.call(publish) == "spooled"
    assert counts(own) == {"offered": 2, "delivered": 1, "in_flight": 1}
    shelf.kept[0].stored()
    assert counts(own) == {"offered": 2, "delivered": 1, "spooled": 1}


def test_connections_of_one_broker_share_a_relay(connect, queues):
    """One thread for all of them; a function that is handed one uses it, too."""
    queue, elsewhere = queues.queue(), queues.exchange("fanout")
    aside = queues.queue(elsewhere, "")
    own = limited(f"overflow {elsewhere}", match=queue)
    before = set(threading.enumerate())

    @shielded(shield=own)
    def publish(channel):
        channel.basic_publish("", queue, b"")

    for connection in (connect(), connect(pika.BlockingConnection)):
        channel = shielded(connection.channel(), shield=own)
        publish(channel)
        publish(channel)
    relays = [t for t in set(threading.enumerate()) - before if t.name == "shield-rabbitmq"]
    assert len(relays) == 1
    assert queues.depth(aside) == 3
    assert counts(own) == {"offered": 4, "delivered": 1, "overflowed": 3}


def test_a_forked_child_counts_its_own(connect, queues):
    """Its ledger starts empty; the parent's goes on."""
    queue = queues.queue()
    own = limited(f"overflow {queues.exchange()}/k", "drop")
    channel = connect(shield=own).channel()
    channel.basic_publish("", queue, b"")
    child = os.fork()
    if child == 0:
        os._exit(0 if own.ledger().offered == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    channel.basic_publish("", queue, b"")
    assert counts(own) == {"offered": 2, "delivered": 1, "dropped": 1}


# --- SelectConnection -----------------------------------------------------------------------------


@pytest.fixture
def run_loop(rabbitmq: RabbitMQ) -> Iterator[Callable[..., EventLoop]]:
    """Run event loops; they are ended when the test is."""
    made: list[EventLoop] = []

    def run_loop(chosen: Any, url: str = rabbitmq.address, **more: Any) -> EventLoop:
        made.append(
            EventLoop(lambda *a, **k: SelectConnection(*a, shield=chosen, **k), url, **more)
        )
        return made[-1]

    yield run_loop
    for loop in made:
        loop.close()


def test_every_callback_of_an_event_loop_is_handed_the_users_channel(run_loop, queues):
    """Open, consumer, get, return and close; `add_callback` and the like are pika's own."""
    queue = queues.queue()
    loop = run_loop({})
    channel = loop.channel
    handed: dict[str, Any] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda it, *_: handed.update({name: it})

    def begin() -> None:
        channel.add_on_return_callback(note("return"))
        channel.add_on_close_callback(note("close"))
        channel.basic_publish("", "no-such-queue", b"", mandatory=True)
        channel.basic_publish("", queue, b"1")
        channel.basic_publish("", queue, b"2")
        channel.basic_get(queue, note("get"), auto_ack=True)
        channel.basic_consume(queue, note("consumer"), auto_ack=True)

    assert isinstance(channel, Channel)
    assert channel.connection is loop.connection
    loop.call(begin)
    eventually(lambda: {"return", "get", "consumer"} <= set(handed))
    loop.call(channel.close)
    eventually(lambda: "close" in handed)
    assert all(it is channel for it in handed.values())
    second = loop.call(lambda: loop.connection.channel(on_open_callback=note("open")))
    eventually(lambda: handed.get("open") is second)
    assert second is not channel


def test_pikas_own_classes_are_left_alone(connect):
    """Other channels, also of the same connection, are pika's and not shielded."""
    connection = connect(pika.BlockingConnection)
    own = limited()
    shielded(connection.channel(), shield=own)
    other = connection.channel()
    assert type(other) is BlockingChannel
    for _ in range(3):
        other.basic_publish("", "no-such-queue", b"")
    assert own.ledger().offered == 0
    assert type(connect(shield=own)) is BlockingConnection
    assert pika.BlockingConnection is pika.adapters.blocking_connection.BlockingConnection


def test_create_connection_gives_a_shielded_one(rabbitmq, queues):
    """By pika's own workflow, with several parameters; `on_done` gets the connection."""
    queue, own, done = queues.queue(), limited("drop"), []
    loop = pika.adapters.select_connection.IOLoop()

    def connected(connection: Any) -> None:
        done.append(connection)
        connection.channel(on_open_callback=opened)

    def opened(channel: Any) -> None:
        for body in (b"1", b"2"):
            channel.basic_publish("", queue, body)
        channel.connection.add_on_close_callback(lambda *_: loop.stop())
        channel.connection.close()

    configs = [pika.ConnectionParameters("127.0.0.1", 1), pika.URLParameters(rabbitmq.address)]
    SelectConnection.create_connection(
        configs, on_done=connected, custom_ioloop=loop, shield=own, shield_producer="shop"
    )
    loop.start()
    assert type(done[0]) is SelectConnection
    assert queues.bodies(queue) == [b"1"]
    assert list(own.ledger().producers) == ["shop"]


def test_an_asyncio_channel_is_shielded_in_a_coroutine_function(rabbitmq, queues):
    """The `Channel` of any of pika's connections will do."""
    queue, own = queues.queue(), limited("drop")

    @shielded(shield=own)
    async def publish(channel: Any) -> None:
        for body in (b"1", b"2"):
            await asyncio.sleep(0)
            channel.basic_publish("", queue, body)

    async def main() -> None:
        opened, closed = asyncio.Future[Any](), asyncio.Future[Any]()
        connection = AsyncioConnection(
            pika.URLParameters(rabbitmq.address),
            on_open_callback=lambda it: it.channel(on_open_callback=opened.set_result),
            on_close_callback=lambda _, reason: closed.set_result(reason),
        )
        await publish(await opened)
        connection.close()
        await closed

    asyncio.run(main())
    assert queues.bodies(queue) == [b"1"]
    assert counts(own) == {"offered": 2, "delivered": 1, "dropped": 1}


def test_a_thousand_confirms_are_counted(run_loop, queues):
    """The broker acks many at once; the ledger and the user's callback both have all."""
    queue = queues.queue()
    own = Shield({"rules": [{"match": "*", "in_flight": {"messages": 100}, "over_limit": "drop"}]})
    loop = run_loop(own, confirms=True)

    def publish() -> None:
        for _ in range(50):
            loop.channel.basic_publish("", queue, b"", BasicProperties(delivery_mode=2))

    for _ in range(20):
        loop.call(publish)
    eventually(lambda: own.ledger().in_flight == 0)
    ledger = own.ledger()
    assert ledger.offered == 1000
    assert ledger.delivered == queues.depth(queue) == 1000 - ledger.dropped
    assert loop.confirms


def test_a_channel_that_the_broker_closes_leaves_nothing_in_flight(run_loop, queues):
    """What it had confirmed is delivered, all else failed."""
    own = Shield({})
    loop = run_loop(own, confirms=True)

    def publish() -> None:
        loop.channel.basic_publish("", "no-such-queue", b"")
        loop.channel.basic_publish("not-there", "k", b"")
        loop.channel.basic_publish("", "no-such-queue", b"")

    loop.call(publish)
    eventually(lambda: loop.channel.is_closed)
    assert own.ledger().failed >= 2
    assert counts(own)["offered"] == 3
    assert own.ledger().in_flight == 0


def test_a_cut_loop_leaves_nothing_in_flight(rabbitmq, run_loop, queues, proxy_to):
    """What was not confirmed counts as failed; the queue may hold it."""
    proxy = proxy_to(rabbitmq.address)
    own, queue = Shield({}), queues.queue()
    loop = run_loop(own, url=proxy.url, confirms=True)

    def publish_all() -> None:
        for _ in range(200):
            loop.channel.basic_publish("", queue, bytes(1000), BasicProperties(delivery_mode=2))

    with suppress(pika.exceptions.AMQPError, TimeoutError):
        loop.call(publish_all)
        proxy.cut()
    assert isinstance(loop.ended(), AMQPConnectionError)
    ledger = own.ledger()
    assert ledger.balanced
    assert (ledger.offered, ledger.in_flight) == (200, 0)
    assert ledger.delivered <= queues.depth(queue) <= 200
