"""The publisher and its decorator on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pika
import pytest
from pika import BasicProperties
from pika.exceptions import AMQPError, ChannelClosedByBroker, UnroutableError

import shield
from integration.brokers import RabbitMQ
from integration.queues import Queues
from shield import Shield
from shield_rabbitmq import (
    ExchangeError,
    ForkedPublisherError,
    Publisher,
    PublisherClosedError,
    Publishing,
    RefusedError,
    ReturnedError,
    publisher,
)
from tests.contracts.adapter import Adapter, FutureContract

PERSISTENT = BasicProperties(delivery_mode=2)
ONE = {"rate": "1/h", "burst": 1}


@pytest.fixture
def queues(rabbitmq: RabbitMQ) -> Iterator[Queues]:
    with Queues(rabbitmq.address) as queues:
        yield queues


@pytest.fixture
def make(rabbitmq: RabbitMQ) -> Iterator[Callable[..., Publisher]]:
    """Make publishers that are closed at the end, whatever happened; then no thread is left."""
    made: list[Publisher] = []
    before = set(write_threads())  # where an earlier test has failed

    def make(*rules: dict[str, Any], **more: Any) -> Publisher:
        made.append(Publisher(rabbitmq.address, shield={"rules": [*rules]}, **more))
        return made[-1]

    yield make
    for one in made:
        one.close(10)
        assert one.shield.ledger().balanced
        assert one.shield.ledger().in_flight == 0
    assert set(write_threads()) <= before


def write_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "shield-rabbitmq" and t.is_alive()]


class PublisherAdapter(Adapter):
    over_limit_error = AMQPError

    def __init__(self, url: str) -> None:
        self._queues = Queues(url)
        self._held: dict[str, list[Any]] = {}
        self._queue_of: dict[str, str] = {}

    def publisher(self, chosen, name):
        return Publisher(self._queues.url, shield=chosen, shield_producer=name)

    def destination(self):
        exchange = self._queues.exchange()
        queue = self._queues.queue(exchange, "created")
        self._queue_of[f"{exchange}/created"] = queue
        return f"{exchange}/created"

    def publish(self, publisher, destination, body, headers):
        exchange, _, routing_key = destination.partition("/")
        return publisher.publish(exchange, routing_key, body, BasicProperties(headers=headers))

    def result(self, publisher, future):
        return future.result(60)

    def arrived(self, publisher, destination):
        held = self._held.setdefault(destination, [])
        for stored in self._queues.take(self._queue_of[destination]):
            headers = stored.properties.headers or {}
            held.append((stored.body, {key: str(value) for key, value in headers.items()}))
        return held

    def close(self, publisher):
        publisher.close(10)

    def wrong_calls(self, publisher, destination):
        unsendable = BasicProperties(headers={"x": object()})
        return [
            lambda: publisher.publish(destination, "created", 1),
            lambda: publisher.publish(destination, "created", None),
            lambda: publisher.publish(destination, None, b"body"),
            lambda: publisher.publish(destination, "created", b"body", {"headers": {}}),
            lambda: publisher.publish(destination, "created", b"body", unsendable),
            lambda: publisher.publish("x" * 256, "created", b"body"),
        ]

    def unreachable(self):
        return "not-there/created"

    def end(self) -> None:
        self._queues.close()


class TestPublisher(FutureContract):
    @pytest.fixture
    def adapter(self, rabbitmq):
        adapter = PublisherAdapter(rabbitmq.address)
        yield adapter
        adapter.end()


# --- many at once ---------------------------------------------------------------------------------


@pytest.mark.smoke
def test_four_threads_publish_and_every_message_is_confirmed(make, queues):
    """2,000 futures complete; the queue holds each message once, each thread's in its order."""
    queue = queues.queue()
    one = make(window=100)

    def publish(thread: int) -> list[Future[None]]:
        return [one.publish("", queue, b"%d %d" % (thread, n), PERSISTENT) for n in range(500)]

    with ThreadPoolExecutor(4) as pool:
        for futures in pool.map(publish, range(4)):
            assert all(future.result(60) is None for future in futures)
    bodies = queues.bodies(queue)
    for thread in range(4):
        of_thread = [body for body in bodies if body.startswith(b"%d " % thread)]
        assert of_thread == [b"%d %d" % (thread, n) for n in range(500)]
    assert one.shield.ledger().delivered == len(bodies) == 2000


def test_a_window_that_was_exactly_full_is_filled_again(make, queues):
    """Publishing goes on where the last message of a burst took the last place on the wire."""
    queue = queues.queue()
    one = make(window=1)
    for body in (b"1", b"2", b"3"):
        one.publish("", queue, body).result(60)
    assert queues.bodies(queue) == [b"1", b"2", b"3"]


def test_a_body_of_many_frames_and_an_empty_one_arrive(make, queues):
    """A megabyte is cut into frames; no bytes at all are none; text becomes UTF-8."""
    queue = queues.queue()
    bodies = [bytes(range(256)) * 4096, b"", "é"]
    for body in bodies:
        make().publish("", queue, body).result(60)
    assert queues.bodies(queue) == [bodies[0], b"", "é".encode()]


def test_properties_arrive_as_given_and_are_left_alone(make, queues):
    """All of them go through; the caller may change the object for the next message at once."""
    queue = queues.queue()
    one = make()
    properties = BasicProperties(headers={"n": 0, "deep": {"list": [1, "a"]}}, expiration="60000")
    futures = []
    for number in range(20):
        properties.headers["n"] = number
        futures.append(one.publish("", queue, b"", properties))
    for future in futures:
        future.result(60)
    stored = queues.take(queue)
    assert [each.properties.headers["n"] for each in stored] == list(range(20))
    assert stored[0].properties.headers["deep"] == {"list": [1, "a"]}
    assert stored[0].properties.expiration == "60000"
    assert properties.headers == {"n": 19, "deep": {"list": [1, "a"]}}


def test_beyond_its_own_bound_publish_blocks_and_loses_nothing(make, queues):
    """Without an in_flight rule, so many messages are unanswered at the most."""
    queue = queues.queue()
    one = make(max_messages=10)
    most = 0
    for _ in range(500):
        one.publish("", queue, b"body", PERSISTENT)
        most = max(most, one.shield.ledger().in_flight)
    one.close(10)
    assert most <= 11
    assert queues.depth(queue) == one.shield.ledger().delivered == 500


def test_an_in_flight_rule_sheds_instead_of_blocking(make, queues):
    """Its chain acts at its bound, not at the publisher's own."""
    queue = queues.queue()
    one = make({"match": "*", "in_flight": {"messages": 50}, "over_limit": "drop"}, max_messages=1)
    futures = [one.publish("", queue, b"body", PERSISTENT) for _ in range(2000)]
    for future in futures:
        future.result(60)
    ledger = one.shield.ledger()
    assert ledger.dropped > 0
    assert ledger.delivered + ledger.dropped == 2000
    assert queues.depth(queue) == ledger.delivered


# --- what the broker answers ----------------------------------------------------------------------


def test_unroutable_messages_fail_and_their_neighbours_do_not(make, queues):
    """Each return finds its own future among many in flight; also a pika UnroutableError."""
    queue = queues.queue()
    one = make()
    futures = [
        one.publish("", "nobody" if n % 3 == 0 else queue, b"%d" % n, PERSISTENT)
        for n in range(300)
    ]
    for number, future in enumerate(futures):
        if number % 3:
            assert future.result(60) is None
            continue
        error = future.exception(10)
        assert isinstance(error, ReturnedError)
        assert isinstance(error, UnroutableError)
        assert error.messages[0].body == b"%d" % number
        assert "312 NO_ROUTE" in str(error)
    ledger = one.shield.ledger()
    assert (ledger.delivered, ledger.failed) == (200, 100) == (queues.depth(queue), 100)


def test_an_unroutable_message_that_is_not_mandatory_is_delivered(make):
    """That is what its publisher asked for: confirmed, and nowhere."""
    one = make()
    assert one.publish("", "nobody", b"body", mandatory=False).result(60) is None
    assert one.shield.ledger().delivered == 1


def test_a_missing_exchange_fails_its_own_messages_only(make, queues):
    """A clear error that names it; what is in flight beside it is confirmed as ever."""
    queue = queues.queue()
    one = make()
    good = [one.publish("", queue, b"body", PERSISTENT) for _ in range(100)]
    bad = [one.publish("not-there", "key", b"body") for _ in range(10)]
    good += [one.publish("", queue, b"body", PERSISTENT) for _ in range(100)]
    for future in bad:
        error = future.exception(10)
        assert isinstance(error, ExchangeError)
        assert isinstance(error, ChannelClosedByBroker)
        assert "not-there" in str(error)
    for future in good:
        future.result(60)
    assert queues.depth(queue) == one.shield.ledger().delivered == 200


def test_an_exchange_deleted_in_mid_stream_takes_nothing_else_with_it(make, queues):
    """The channel is closed and opened anew: what came behind is sent, what came before unknown."""
    exchange, queue = queues.exchange(), queues.queue()
    queues.queue(exchange, "key")
    one = make()
    one.publish(exchange, "key", b"body").result(60)
    queues.channel.exchange_delete(exchange)
    bad = one.publish(exchange, "key", b"body")
    good = [one.publish("", queue, b"%d" % n, PERSISTENT) for n in range(500)]
    assert isinstance(bad.exception(10), ExchangeError)
    for future in good:
        future.result(60)
    assert queues.bodies(queue) == [b"%d" % n for n in range(500)]


def test_a_message_that_the_broker_refuses_fails_alone(make, queues):
    """It closes the channel; all beside it arrive, once each, and in order."""
    queue = queues.queue()
    one = make()
    futures = [one.publish("", queue, b"%d" % n, PERSISTENT) for n in range(50)]
    bad = one.publish("", queue, b"bad", BasicProperties(user_id="somebody"))
    futures += [one.publish("", queue, b"%d" % n, PERSISTENT) for n in range(50, 100)]
    assert isinstance(bad.exception(10), RefusedError)
    assert queue in str(bad.exception())
    assert [future.exception(10) for future in futures] == [None] * 100
    assert queues.bodies(queue) == [b"%d" % n for n in range(100)]


# --- overflow -------------------------------------------------------------------------------------


def test_an_overflowed_message_carries_where_it_was_going(make, queues):
    """Exchange, routing key, CC, BCC and expiration are saved; what routes or expires is gone."""
    exchange, overflow = queues.exchange(), queues.exchange("fanout")
    queue, second = queues.queue(exchange, "created"), queues.queue(exchange, "copy")
    set_aside = queues.queue(overflow, "")
    one = make({"match": f"{exchange}/*", "quota": ONE, "over_limit": f"overflow {overflow}"})
    one.publish(exchange, "created", b"1").result(60)
    headers = {"CC": ["copy"], "BCC": ["copy"], "mine": "a"}
    properties = BasicProperties(headers=headers, expiration="60000", content_type="text/plain")
    future = one.publish(exchange, "created", b"2", properties)
    future.result(60)
    assert shield.fate(future) == "overflowed"
    assert queues.depth(queue) == 1
    assert queues.depth(second) == 0
    (stored,) = queues.take(set_aside)
    assert stored.body == b"2"
    assert stored.properties.expiration is None
    assert stored.properties.content_type == "text/plain"
    found = stored.properties.headers
    assert found["x-original-exchange"] == exchange
    assert found["x-original-routingKey"] == "created"
    assert found["shield-original-routing-key"] == "created"
    assert found["shield-original-destination"] == f"{exchange}/created"
    assert found["shield-original-cc"] == found["shield-original-bcc"] == ["copy"]
    assert found["shield-original-expiration"] == "60000"
    assert found["mine"] == "a"
    assert not {"CC", "BCC"} & set(found)
    assert properties.headers is headers
    assert set(headers) == {"CC", "BCC", "mine"}


def test_overflow_may_change_the_routing_key(make, queues):
    """`overflow EXCHANGE/KEY`; with nothing before the slash it is a queue's own name."""
    queue, set_aside = queues.queue(), queues.queue()
    one = make({"match": queue, "quota": ONE, "over_limit": f"overflow /{set_aside}"})
    for number in range(3):
        one.publish("", queue, b"%d" % number).result(60)
    assert queues.bodies(set_aside) == [b"1", b"2"]


@pytest.mark.parametrize("what", ["missing", "unroutable", "full"])
def test_an_overflow_exchange_that_does_not_take_it_hands_on(make, queues, what):
    """Missing, bound to nothing, or its queue refusing: the chain goes on, others do not notice."""
    queue = queues.queue()
    overflow = "not-there" if what == "missing" else queues.exchange("fanout")
    if what == "full":
        queues.queue(overflow, "", x_max_length=0, x_overflow="reject-publish")
    one = make({"match": queue, "quota": ONE, "over_limit": [f"overflow {overflow}", "drop"]})
    futures = [one.publish("", queue, b"body") for _ in range(20)]
    beside = queues.queue()
    futures += [one.publish("", beside, b"body") for _ in range(20)]
    for future in futures:
        future.result(60)
    ledger = one.shield.ledger()
    assert (ledger.delivered, ledger.dropped, ledger.overflowed) == (21, 19, 0)
    assert queues.depth(queue) == 1
    assert queues.depth(beside) == 20


# --- its end --------------------------------------------------------------------------------------


def test_close_confirms_what_is_under_way_and_ends_the_thread(make, queues):
    """All futures are done when it returns; it may be called again; publishing then is an error."""
    queue = queues.queue()
    one = make()
    futures = [one.publish("", queue, b"body", PERSISTENT) for _ in range(1000)]
    assert write_threads()
    one.close()
    assert all(future.done() and future.exception() is None for future in futures)
    assert not write_threads()
    one.close()
    with pytest.raises(PublisherClosedError):
        one.publish("", queue, b"body")
    assert queues.depth(queue) == one.shield.ledger().offered == 1000


def test_a_publisher_that_was_never_used_has_no_thread(make):
    """Nothing is started before the first message."""
    one = make()
    assert not write_threads()
    one.close()
    with pytest.raises(PublisherClosedError):
        one.publish("", "queue", b"body")


def test_a_callback_may_publish_and_close(make, queues):
    """Callbacks run on the write thread: neither blocks it, and what they publish is confirmed."""
    queue = queues.queue()
    one = make(max_messages=1)
    later: Future[Future[None]] = Future()

    def publish_and_close(_done: object) -> None:
        later.set_result(one.publish("", queue, b"2"))
        one.close()

    one.publish("", queue, b"1").add_done_callback(publish_and_close)
    assert later.result(60).result(10) is None
    assert queues.bodies(queue) == [b"1", b"2"]


def test_a_publisher_that_is_let_go_of_confirms_and_ends(rabbitmq, queues):
    """Without close: its messages arrive, and its thread ends by itself."""
    queue = queues.queue()

    def publish() -> list[Future[None]]:
        one = Publisher(rabbitmq.address, shield={})
        return [one.publish("", queue, b"body", PERSISTENT) for _ in range(100)]

    for future in publish():
        future.result(60)
    for thread in write_threads():
        thread.join(60)
    assert not write_threads()
    assert queues.depth(queue) == 100


def test_a_program_that_just_ends_confirms_what_it_published(rabbitmq, queues):
    """At exit the queue is drained; nobody has to call close."""
    queue = queues.queue()
    program = f"""
        from shield_rabbitmq import Publisher
        def publish(number):
            publisher = Publisher({rabbitmq.address!r}, shield={{}})
            for _ in range(number):
                publisher.publish("", {queue!r}, b"body")
            return publisher
        publish(500)
        held = publish(500)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=150)
    assert queues.depth(queue) == 1000


def _publish_in_child(one: Publisher, queue: str, results: Any) -> None:
    try:
        one.publish("", queue, b"child")
    except ForkedPublisherError as error:
        results.put(str(error))


def test_a_forked_child_is_told_to_make_its_own(make, queues):
    """The write thread is in the parent, whose connection goes on as before."""
    queue = queues.queue()
    one = make()
    one.publish("", queue, b"1").result(60)
    context = get_context("fork")
    results = context.Queue()
    child = context.Process(target=_publish_in_child, args=(one, queue, results))
    child.start()
    assert "make a publisher in the child" in results.get(timeout=60)
    child.join(60)
    one.publish("", queue, b"2").result(60)
    assert queues.bodies(queue) == [b"1", b"2"]


def test_an_idle_publisher_keeps_its_connection(rabbitmq, queues, proxy_to):
    """Heartbeats go on while nobody publishes, far longer than the broker would bear silence."""
    queue = queues.queue()
    proxy = proxy_to(rabbitmq.address)
    with Publisher(f"{proxy.url}?heartbeat=1", shield={}) as one:
        one.publish("", queue, b"1").result(60)
        time.sleep(5)
        one.publish("", queue, b"2").result(60)
        assert proxy.accepted == 1


# --- the decorator --------------------------------------------------------------------------------


@pytest.fixture
def decorate(rabbitmq: RabbitMQ) -> Iterator[Callable[..., Any]]:
    """`@publisher` on the shared broker, with a Shield of the test's own."""
    chosen: list[Shield] = []
    made = []

    def decorate(*rules: dict[str, Any], **more: Any) -> Callable[..., Any]:
        if not chosen:
            chosen.append(Shield({"rules": [*rules]}))

        def wrap(function: Any) -> Any:
            made.append(publisher(rabbitmq.address, shield=chosen[0], **more)(function))
            return made[-1]

        return wrap

    yield decorate
    for one in made:
        one.publisher.close(10)


def test_a_decorated_function_returns_when_its_message_is_confirmed(decorate, queues):
    """Bytes, text and Publishing all go; they are persistent; the function keeps its name."""
    exchange = queues.exchange("topic")
    queue = queues.queue(exchange, "orders.#")

    @decorate(exchange=exchange, routing_key="orders.{country}.{order[id]}")
    def created(order, country="de"):
        """Make it."""
        return order["body"]

    created({"id": 1, "body": b"bytes"})
    created({"id": 2, "body": "text"}, country="fr")
    created({"id": 3, "body": Publishing("p", routing_key="orders.own", headers={"a": "b"})})
    stored = queues.take(queue)
    assert [each.body for each in stored] == [b"bytes", b"text", b"p"]
    assert [each.properties.delivery_mode for each in stored] == [2, 2, 2]
    assert stored[2].properties.headers == {"a": "b"}
    assert (created.__name__, created.__doc__) == ("created", "Make it.")


def test_submit_returns_a_future_and_shares_one_publisher(decorate, queues):
    """Functions of one broker and Shield have one write thread together."""
    queue = queues.queue()
    first = decorate(routing_key=queue)(lambda n: b"%d" % n)
    second = decorate(routing_key=lambda n: queue)(lambda n: b"%d" % n)
    for future in [first.submit(n) for n in range(50)] + [second.submit(n) for n in range(50)]:
        future.result(60)
    assert first.publisher is second.publisher
    assert len(write_threads()) == 1
    assert queues.depth(queue) == 100


def test_methods_are_decorated_too(decorate, queues):
    """They bind as functions do, on instances and classes; templates may use self."""
    queue = queues.queue()

    class Orders:
        name = queue

        @decorate(routing_key="{self.name}")
        def created(self, number):
            return b"%d" % number

        @classmethod
        @decorate(routing_key="{cls.name}")
        def of_class(cls, number):
            return b"%d" % number

        @staticmethod
        @decorate(routing_key=queue)
        def free(number):
            return b"%d" % number

    Orders().created(1)
    Orders.of_class(2)
    Orders().free(3)
    Orders().created.submit(4).result(60)
    assert queues.bodies(queue) == [b"1", b"2", b"3", b"4"]


def test_a_coroutine_function_never_blocks_the_loop(decorate, queues):
    """While its messages wait for the quota, the loop runs on, dozens of times for each."""
    queue = queues.queue()
    quota = {"rate": "5/s", "burst": 1}

    @decorate({"match": queue, "quota": quota, "over_limit": "wait 5s"}, routing_key=queue)
    async def created(number):
        await asyncio.sleep(0)
        return b"%d" % number

    async def main() -> int:
        turns = 0
        publishing = asyncio.gather(*(created(number) for number in range(4)))
        while not publishing.done():
            await asyncio.sleep(0.005)
            turns += 1
        await publishing
        return turns

    assert asyncio.run(main()) > 20
    assert sorted(queues.bodies(queue)) == [b"0", b"1", b"2", b"3"]


def test_over_the_limit_a_decorated_call_raises_or_drops(decorate, queues):
    """`raise` raises from the call; a dropped message's call returns."""
    queue, other = queues.queue(), queues.queue()
    raising = {"match": queue, "quota": ONE, "over_limit": "raise"}
    dropping = {"match": other, "quota": ONE, "over_limit": "drop"}
    created = decorate(raising, dropping, routing_key="{to}")(lambda to: b"body")
    created(queue)
    with pytest.raises(shield.OverLimitError):
        created(queue)
    for _ in range(3):
        created(other)
    assert queues.depth(queue) == queues.depth(other) == 1


def test_a_decorated_call_in_a_callback_is_refused(decorate, queues):
    """It would wait for itself; the error says what to use instead."""
    queue = queues.queue()
    created = decorate(routing_key=queue)(lambda: b"body")
    errors: Future[BaseException] = Future()

    def call(_future: object) -> None:
        try:
            created()
        except shield.ShieldError as error:
            errors.set_result(error)

    created.submit().add_done_callback(call)
    assert "use .submit" in str(errors.result(60))


def test_what_a_decorated_function_must_not_return_is_named(decorate, queues):
    """None and other objects, wrong bodies and properties: a TypeError that names the function."""
    created = decorate(routing_key="queue")(lambda made: made)
    wrong = [
        None,
        1,
        {"a": 1},
        Publishing(None),
        Publishing(b"", properties="p"),
        Publishing(b"", headers=1),
    ]
    for made in wrong:
        with pytest.raises(TypeError):
            created(made)
    with pytest.raises(TypeError, match=r"<lambda>.* returned None; allowed are bytes"):
        created(None)
    assert created.publisher.shield.ledger().offered == 0


def test_pika_parameters_may_stand_for_the_url(rabbitmq, queues):
    """What pika takes is taken."""
    queue = queues.queue()
    with Publisher(pika.URLParameters(rabbitmq.address), shield={}) as one:
        one.publish("", queue, b"body").result(60)
    assert queues.depth(queue) == 1
