"""One bad message among many, through each front end, on a RabbitMQ in memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika import BasicProperties

from shield import Shield
from shield_rabbitmq import (
    BlockingConnection,
    Publisher,
    RabbitMQDeliveryUnknownError,
    RefusedError,
    publisher,
)
from shield_rabbitmq.connection import write_thread
from shield_rabbitmq.publishing.properties import Publishing
from tests.adapters.shield_rabbitmq.amqp_server import AmqpServer
from tests.contracts.poison import PoisonContract
from tests.eventually import eventually

PERSISTENT = BasicProperties(delivery_mode=2)
KNOWN = {
    "expiration is no number": BasicProperties(expiration="later"),
    "expiration below zero": BasicProperties(expiration="-1"),
    "expiration is empty": BasicProperties(expiration=""),
    "CC is a text": BasicProperties(headers={"CC": "audit"}),
    "BCC is nothing": BasicProperties(headers={"BCC": None}),
    "header larger than a frame": BasicProperties(headers={"trace": "x" * 200_000}),
}
ELSEWHERE = {"direct reply-to": BasicProperties(reply_to="amq.rabbitmq.reply-to")}
"""On a channel of its own it has a meaning."""
ASKED = {"another's user_id": BasicProperties(user_id="somebody")}
UNKNOWN = ("unknown topic", "unknown size", "unknown reason", "unknown mode")
TOPICS = "topics"
QUEUE = "work"


def unknown_mode() -> BasicProperties:
    properties = BasicProperties()
    properties.delivery_mode = 7
    return properties


PROPERTIES = {**KNOWN, **ELSEWHERE, **ASKED, "unknown mode": unknown_mode()}


@pytest.fixture
def server() -> Iterator[AmqpServer]:
    server = AmqpServer()
    server.exchanges[TOPICS] = QUEUE
    server.forbidden_topics.add((TOPICS, "forbidden"))
    server.max_size = 1000
    server.odd.add(b"bad")
    yield server
    server.close()


class OnServer(PoisonContract):
    """What all front ends share."""

    @pytest.fixture(autouse=True)
    def _on(self, server: AmqpServer) -> Iterator[None]:
        self.server = server
        self._shield = Shield({"rules": []})
        self.open()
        yield
        self.close()

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def one(self, body: bytes, reason: str | None) -> tuple[str, str, bytes, BasicProperties]:
        """Return the arguments of a publish."""
        if reason == "unknown topic":
            return TOPICS, "forbidden", body, PERSISTENT
        if reason == "unknown size":
            return "", QUEUE, b"x" * 1001, PERSISTENT
        return TOPICS, "ok", body, PROPERTIES.get(reason or "", PERSISTENT)

    @property
    def destination(self) -> str:
        return ""

    @property
    def shield(self) -> Shield:
        return self._shield

    def arrived(self) -> Counter[bytes]:
        return Counter(self.server.queues[QUEUE])


class TestPublisher(OnServer):
    """Pipelined, hundreds on the wire."""

    reasons = (*KNOWN, *ELSEWHERE, *ASKED, *UNKNOWN)
    in_doubt = ("unknown topic", "unknown size", "unknown reason")

    def open(self) -> None:
        self.publisher = Publisher(self.server.url, shield=self._shield)

    def close(self) -> None:
        self.publisher.close(5)

    def send(self, body: bytes, reason: str | None) -> Any:
        return self.publisher.publish(*self.one(body, reason))

    def settle(self) -> None:
        self.publisher.flush(30)


class TestDecorated(TestPublisher):
    """`.submit(...)` of a decorated function."""

    def open(self) -> None:
        def made(one: Any) -> Publishing:
            _, key, body, properties = one
            return Publishing(body, properties, key)

        decorate = publisher(self.server.url, exchange=TOPICS, shield=self._shield)
        self.function = decorate(made)
        self.publisher = self.function.publisher

    reasons = (*KNOWN, *ELSEWHERE, *ASKED, "unknown topic", "unknown reason", "unknown mode")

    def send(self, body: bytes, reason: str | None) -> Any:
        return self.function.submit(self.one(body, reason))


class TestBlockingChannel(OnServer):
    """A drop-in channel: what is known to be refused does not close it."""

    reasons = tuple(KNOWN)

    def open(self) -> None:
        parameters = pika.URLParameters(self.server.url)
        self.connection = BlockingConnection(parameters, shield=self._shield)
        self.channel = self.connection.channel()

    def close(self) -> None:
        if self.connection.is_open:
            self.connection.close()

    def send(self, body: bytes, reason: str | None) -> None:
        self.channel.basic_publish(*self.one(body, reason))

    def settle(self) -> None:
        self.connection.process_data_events(0.1)


class TestConfirmingChannel(TestBlockingChannel):
    """With confirms, one at a time."""

    def open(self) -> None:
        super().open()
        self.channel.confirm_delivery()


@pytest.mark.parametrize("bad", ["topic", "reason"])
def test_without_a_confirm_nothing_counts_as_delivered(server, bad):
    """What was written before the one that ends the channel: its end is that nobody knows."""
    server.odd.clear()
    one = Publisher(server.url, shield={"rules": []})
    assert one.publish(TOPICS, "ok", b"first").exception(10) is None
    server.confirms = False
    before = [one.publish(TOPICS, "ok", b"before %d" % n) for n in range(5)]
    eventually(lambda: len(server.queues[QUEUE]) == 6)
    if bad == "reason":
        server.odd.add(b"bad")
    error = one.publish(TOPICS, "forbidden" if bad == "topic" else "ok", b"bad").exception(10)
    assert isinstance(error, RefusedError)
    one.close(1)
    assert all(isinstance(future.exception(0), RabbitMQDeliveryUnknownError) for future in before)
    assert one.shield.ledger().delivered == 1
    assert one.shield.ledger().balanced


def test_what_has_no_confirm_is_sent_again_where_that_is_wanted(server):
    """`resend_unconfirmed` chooses duplicates."""
    with Publisher(server.url, shield={"rules": []}, resend_unconfirmed=True) as one:
        assert one.publish(TOPICS, "ok", b"first").exception(10) is None
        server.confirms = False
        before = [one.publish(TOPICS, "ok", b"before %d" % n) for n in range(5)]
        eventually(lambda: len(server.queues[QUEUE]) == 6)
        server.confirms = True
        bad = one.publish(TOPICS, "forbidden", b"bad")
        assert isinstance(bad.exception(10), RefusedError)
        assert [future.exception(10) for future in before] == [None] * 5
    assert Counter(server.queues[QUEUE])[b"before 0"] == 2
    assert one.shield.ledger().delivered == 6


def test_a_queue_that_does_not_answer_does_not_hold_up_other_exchanges(server, monkeypatch):
    """The first message for an exchange goes alone, for a while."""
    monkeypatch.setattr(write_thread, "ALONE_WITHIN_S", 0.2)
    server.confirms = False
    one = Publisher(server.url, shield={"rules": []})
    one.publish("", QUEUE, b"default")
    one.publish(TOPICS, "ok", b"topics")
    eventually(lambda: len(server.queues[QUEUE]) == 2)
    one.close(0.1)


def test_what_is_refused_once_is_refused_at_once_for_a_while(server):
    """A forbidden topic closes the channel once, not once for each of a hundred messages."""
    with Publisher(server.url, shield={"rules": []}) as one:
        errors = [one.publish(TOPICS, "forbidden", b"x").exception(10) for _ in range(100)]
        assert one.publish(TOPICS, "ok", b"x").exception(10) is None
    assert all(isinstance(error, RefusedError) for error in errors)
    assert server.closed_channels == 1


def test_an_exchange_that_refuses_topics_is_found_out_key_by_key(server):
    """After the first forbidden one, keys that were not seen go alone, those that were do not."""
    server.forbidden_topics |= {(TOPICS, f"no.{n}") for n in range(5)}
    with Publisher(server.url, shield={"rules": []}) as one:
        futures = {}
        for n in range(200):
            futures[n] = one.publish(TOPICS, f"no.{n % 5}" if n % 40 == 7 else f"ok.{n % 9}", b"x")
        ends = {n: type(future.exception(10)) for n, future in futures.items()}
    assert {n for n in ends if ends[n] is RefusedError} == set(range(7, 200, 40))
    assert {n for n in ends if ends[n] is RabbitMQDeliveryUnknownError} <= set(range(7))
    assert len(server.queues[QUEUE]) == 195


def test_close_while_suspects_go_one_by_one_has_an_end_for_each(server):
    """Whatever is known of them by then: nothing stays in flight."""
    server.odd |= {b"good %d" % n for n in range(0, 300, 10)}
    one = Publisher(server.url, shield={"rules": []})
    futures = [one.publish(TOPICS, "ok", b"good %d" % n) for n in range(300)]
    started = time.monotonic()
    one.close(0.01)
    assert time.monotonic() - started < 5
    assert all(future.done() for future in futures)
    assert one.shield.ledger().in_flight == 0
    assert one.shield.ledger().balanced


def test_while_the_broker_takes_nothing_what_has_another_way_goes_it(server):
    """Nothing of it is written before the broker has answered a probe; the rest waits."""
    server.blocked = True
    rules = [{"match": QUEUE, "quota": {"rate": "1/h", "burst": 1}}]
    rules[0]["over_limit"] = [f"overflow {TOPICS}", "drop"]
    with Publisher(server.url, shield={"rules": rules}) as one:
        waits = one.publish("", QUEUE, b"0")
        aside = [one.publish("", QUEUE, b"%d" % n) for n in range(1, 6)]
        assert [future.exception(20) for future in aside] == [None] * 5
        assert one.blocked
        assert not waits.done()
        assert one.shield.ledger().dropped == 5
        server.unblock()
        assert waits.exception(20) is None
    assert server.queues[QUEUE] == [b"0"]
