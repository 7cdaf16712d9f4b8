"""One bad message among many, on a real RabbitMQ, by each way of each front end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from pika import BasicProperties, ConnectionParameters, URLParameters

from integration.event_loop import EventLoop
from integration.queues import Queues
from shield import Shield
from shield_rabbitmq import BlockingConnection, Publisher, SelectConnection, publisher
from shield_rabbitmq.publishing.properties import Publishing
from tests.contracts.poison import BODIES, GOOD, PoisonContract
from tests.eventually import eventually

PERSISTENT = BasicProperties(delivery_mode=2)
FRAME_MAX = ConnectionParameters().frame_max


def unknown_mode() -> BasicProperties:
    properties = BasicProperties()
    properties.delivery_mode = 7
    return properties


KNOWN = {
    "expiration is no number": BasicProperties(expiration="later"),
    "expiration is a fraction": BasicProperties(expiration="1.5"),
    "CC is a text": BasicProperties(headers={"CC": "audit"}),
    "BCC is a table": BasicProperties(headers={"BCC": {}}),
    "header larger than a frame": BasicProperties(headers={"trace": "x" * 200_000}),
}
ASKED = {
    "direct reply-to": BasicProperties(reply_to="amq.rabbitmq.reply-to"),
    "another's user_id": BasicProperties(user_id="somebody"),
    "unknown delivery mode": unknown_mode(),
}
PROPERTIES = {**KNOWN, **ASKED}
EXCHANGES = ("missing exchange", "internal exchange")


class OnBroker(PoisonContract):
    """What all front ends share."""

    rules: tuple[dict[str, Any], ...] = ()

    @pytest.fixture(autouse=True)
    def _on(self, rabbitmq: Any, tmp_path: Any) -> Iterator[None]:
        self.url = rabbitmq.address
        with Queues(self.url) as queues:
            self.queues = queues
            self.queue = queues.queue()
            self.internal = f"{self.queue}.internal"
            queues.channel.exchange_declare(self.internal, internal=True, auto_delete=False)
            settings: dict[str, Any] = {"spool_dir": str(tmp_path)}
            settings["rules"] = [{"match": self.queue, **rule} for rule in self.rules]
            self._shield = Shield(settings)
            self.open()
            yield
            self.close()
            queues.channel.exchange_delete(self.internal)

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def one(self, body: bytes, reason: str | None) -> tuple[str, str, bytes, BasicProperties]:
        """Return the arguments of a publish."""
        if reason == "missing exchange":
            return "shield.nowhere", self.queue, body, PERSISTENT
        if reason == "internal exchange":
            return self.internal, self.queue, body, PERSISTENT
        return "", self.queue, body, PROPERTIES.get(reason or "", PERSISTENT)

    @property
    def destination(self) -> str:
        return ""

    @property
    def shield(self) -> Shield:
        return self._shield

    def arrived(self) -> Counter[bytes]:
        eventually(lambda: self.queues.depth(self.queue) >= GOOD)
        return Counter(self.queues.bodies(self.queue))


class TestPublisher(OnBroker):
    """Hundreds on the wire."""

    reasons = (*PROPERTIES, *EXCHANGES)

    def open(self) -> None:
        self.publisher = Publisher(self.url, shield=self._shield)

    def close(self) -> None:
        self.publisher.close(10)

    def send(self, body: bytes, reason: str | None) -> Any:
        return self.publisher.publish(*self.one(body, reason))

    def settle(self) -> None:
        self.publisher.flush(60)


class TestBuffered(TestPublisher):
    """Over the limit, and sent by the buffer."""

    rules = ({"quota": {"rate": "500/s", "burst": 10}, "over_limit": ["buffer 1000", "raise"]},)
    reasons = tuple(PROPERTIES)


class TestDecorated(TestPublisher):
    """`.submit(...)`."""

    reasons = tuple(PROPERTIES)

    def open(self) -> None:
        def made(one: Any) -> Publishing:
            return Publishing(one[2], one[3])

        decorate = publisher(self.url, routing_key=self.queue, shield=self._shield)
        self.function = decorate(made)
        self.publisher = self.function.publisher

    def send(self, body: bytes, reason: str | None) -> Any:
        return self.function.submit(self.one(body, reason))


class TestBlockingChannel(OnBroker):
    """What is known to be refused does not close a user's own channel."""

    reasons = tuple(KNOWN)

    def open(self) -> None:
        self.connection = BlockingConnection(URLParameters(self.url), shield=self._shield)
        self.channel = self.connection.channel()

    def close(self) -> None:
        self.connection.close()

    def send(self, body: bytes, reason: str | None) -> None:
        self.channel.basic_publish(*self.one(body, reason))

    def settle(self) -> None:
        self.connection.process_data_events(0.1)


class TestConfirmingChannel(TestBlockingChannel):
    """One at a time."""

    def open(self) -> None:
        super().open()
        self.channel.confirm_delivery()


class TestEventLoop(OnBroker):
    """A SelectConnection's channel, with confirms."""

    reasons = tuple(KNOWN)

    def open(self) -> None:
        def connect(*args: Any, **named: Any) -> Any:
            return SelectConnection(*args, shield=self._shield, **named)

        self.loop = EventLoop(connect, self.url, confirms=True)

    def close(self) -> None:
        self.loop.close()

    def send(self, body: bytes, reason: str | None) -> None:
        self.loop.call(self.loop.channel.basic_publish, *self.one(body, reason))

    def settle(self) -> None:
        eventually(lambda: self.shield.ledger().in_flight == 0)


# --- what a consumer diverts ------------------------------------------------------------------


def calls_back(connection: Any, queue: str, got: list[bytes], done: Any) -> None:
    channel = connection.channel()
    channel.basic_qos(prefetch_count=20)

    def handle(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        got.append(body)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(queue, handle)
    while not done():
        connection.process_data_events(0.1)


def generates(connection: Any, queue: str, got: list[bytes], done: Any) -> None:
    channel = connection.channel()
    channel.basic_qos(prefetch_count=20)
    for method, _properties, body in channel.consume(queue, inactivity_timeout=0.1):
        if method is not None:
            got.append(body)
            channel.basic_ack(method.delivery_tag)
        if done():
            return


def gets(connection: Any, queue: str, got: list[bytes], done: Any) -> None:
    channel = connection.channel()
    while not done():
        method, _properties, body = channel.basic_get(queue)
        if method is not None:
            got.append(body)
            channel.basic_ack(method.delivery_tag)
        connection.sleep(0.01)


@pytest.mark.parametrize("consume", [calls_back, generates, gets])
def test_a_consumer_diverts_all_but_the_one_that_cannot_be(rabbitmq, consume):
    """Its header fills a frame, so that ours do not fit: it is handed over, the others go once."""
    with Queues(rabbitmq.address) as queues:
        queue, late = queues.queue(), queues.queue()
        old = int(time.time()) - 3600
        for at, body in enumerate(BODIES):
            large = {"large": "x" * (FRAME_MAX - 90)} if at == GOOD // 2 else None
            properties = BasicProperties(timestamp=old, headers=large, delivery_mode=2)
            queues.channel.basic_publish("", queue, body, properties)
        rule = {"match": queue, "direction": "consume", "max_age": "1m"}
        own = Shield({"rules": [{**rule, "over_limit": [f"overflow /{late}"]}]})
        got: list[bytes] = []
        end = time.monotonic() + 60

        def done() -> bool:
            all_seen = own.ledger().overflowed == GOOD - 1 and bool(got)
            return all_seen or time.monotonic() > end

        with BlockingConnection(URLParameters(rabbitmq.address), shield=own) as connection:
            consume(connection, queue, got, done)
        bad = BODIES[GOOD // 2]
        assert got == [bad]
        assert Counter(queues.bodies(late)) == Counter(body for body in BODIES if body != bad)
        eventually(lambda: queues.depth(queue) == 0)
        assert own.ledger().balanced
