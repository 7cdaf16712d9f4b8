"""Round trips of RabbitMQ's messages, on a real broker, read by bare pika and byte for byte."""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pika
import pytest
from kafka.admin import KafkaAdminClient, NewTopic
from pika import BasicProperties

import shield
from integration.event_loop import EventLoop
from shield_rabbitmq import (
    BlockingConnection,
    Publisher,
    Publishing,
    SelectConnection,
    publisher,
    shielded,
)
from shield_rabbitmq.client import internals
from shield_rabbitmq.client.raw_properties import (
    DELIVERY_MODE,
    EXPIRATION,
    TIMESTAMP,
    Encoded,
    long_string,
)
from tests.contracts.round_trip import RoundTripContract

LARGE = 20_000_000
ALIVE = 600_000
"""Milliseconds to live: long enough to come back with what is left of it."""
OURS = (b"shield-message-id", b"shield-attempt")
TABLES = {
    "table": {"deep": {"er": [1, None, "x", {"n": b"\xff"}]}},
    "array": [True, -5, "text", b"bytes", [], {}],
    "decimal": Decimal("12.34"),
    "time": datetime(2020, 1, 2, tzinfo=UTC),
    "null": None,
    "bool": False,
    "big": 2**63 - 1,
    "small": -(2**63),
    "long": "ö" * 20_000,
    "bytes": bytes(range(256)),
    "": "an empty name",
}
OWN = {
    "shield-criticality": "sheddable",
    "shield-deadline": "2099-01-01T00:00:00Z",
    "shield-user": b"\xff",
    "shield-original-destination": "nowhere",
    "shield-original-broker": "file:///nowhere",
    "shield-original-cc": ["nowhere"],
    "shield-original-expiration": "1",
    "shield-original-mandatory": "false",
    "shield-expires-at": "1",
    "shield-rule": 5,
    "x-original-exchange": "mine",
    "x-original-routingKey": "",
}
ALL = BasicProperties(
    content_type="text/plain",
    content_encoding="utf-8",
    headers={"n": 1},
    delivery_mode=2,
    priority=7,
    correlation_id="c" * 255,
    reply_to="answers",
    message_id="ö",
    timestamp=2**63,
    type="order",
    user_id="guest",
    app_id="shop",
    cluster_id="old",
)
KEYS = ("main", "copy")
"""By which a destination's two queues are bound."""


def properties(**given: Any) -> BasicProperties:
    return BasicProperties(delivery_mode=2, **given)


MESSAGES: dict[str, tuple[str, bytes, BasicProperties]] = {
    "plain": ("direct", b"v", properties()),
    "all properties": ("direct", b"v", ALL),
    "tables and arrays": ("direct", b"v", properties(headers=TABLES)),
    "the user's own shield-*": ("direct", b"v", properties(headers=OWN)),
    "transient": ("direct", b"v", BasicProperties(delivery_mode=1)),
    "CC": ("direct", b"v", properties(headers={"CC": ["copy"]})),
    "BCC": ("direct", b"v", properties(headers={"BCC": ["copy"], "n": 1})),
    "expires": ("direct", b"v", properties(expiration=str(ALIVE))),
    "a time": ("direct", b"v", properties(timestamp=1_500_000_000)),
    "empty": ("direct", b"", properties()),
    "2 MB": ("direct", os.urandom(2_000_000), properties()),
    "2 MB, compressible": ("direct", b"z" * 2_000_000, properties()),
    "by topic": ("topic", b"v", properties()),
    "by headers": ("headers", b"v", properties(headers={"kind": "main"})),
    "to a queue": ("", b"v", properties()),
}


class Places:
    """Exchanges and queues of a test's own, and what was read out of them."""

    def __init__(self, url: str) -> None:
        self.prefix = f"round-{uuid.uuid4().hex[:8]}"
        self._made = 0
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        internals.keep_unreadable(self._connection)
        self.channel = self._connection.channel()
        self._queues: dict[str, list[str]] = {}
        self._held: dict[str, list[tuple[Any, ...]]] = defaultdict(list)

    def queue(self, kind: str) -> str:
        self._made += 1
        name = f"{self.prefix}-{kind}-{self._made}"
        self.channel.queue_declare(name, durable=True)
        return name

    def destination(self, kind: str) -> str:
        """Make an exchange of that kind with two queues, or a queue; return what rules match."""
        queues = [self.queue("in") for _ in KEYS]
        if not kind:
            self._queues[queues[0]] = queues
            return queues[0]
        exchange = f"{self.prefix}-in-{kind}-{self._made}"
        self.channel.exchange_declare(exchange, kind, durable=True)
        for queue, key in zip(queues, KEYS, strict=True):
            arguments = {"x-match": "all", "kind": key} if kind == "headers" else None
            self.channel.queue_bind(queue, exchange, key, arguments)
        self._queues[f"{exchange}/{KEYS[0]}"] = queues
        return f"{exchange}/{KEYS[0]}"

    def read(self, destination: str, as_read: Callable[..., Any]) -> list[Any]:
        """Return what its queues were given; what both of them were given at once is one."""
        found = []
        for queue in self._queues[destination]:
            while True:
                method, read, body = self.channel.basic_get(queue, auto_ack=True)
                if method is None:
                    break
                self._held[queue].append(as_read(method, read, body))
            found.append(self._held[queue])
        first, second = found
        return (
            list(zip(first, second, strict=True)) if len(first) == len(second) else first + second
        )

    def close(self) -> None:
        self._connection.close()


def as_sent(method: Any, read: Any, body: bytes) -> tuple[Any, ...]:
    """Return what is compared: where it was published, and properties as they are on the wire."""
    one = Encoded.of(read)
    one.headers = [pair for pair in one.headers or () if pair[0] not in OURS] or None
    left_ms = one.text(EXPIRATION)
    if left_ms is not None and 0 < int(left_ms) <= ALIVE:
        one.fields[EXPIRATION] = b"some is left"
    place = method.exchange.partition("-in-")[2].partition("-")[0], method.routing_key[:5]
    return place, b"".join(one.encode()), body


class Queues(RoundTripContract):
    """What publishers and consumers have in common."""

    ways_out: ClassVar[dict[str, str]] = {
        "to a queue": "overflow /{place}",
        "to RabbitMQ by its URL": "overflow amqp://{place}",
        "to Kafka": "overflow kafka://{place}",
        "to a file": "overflow file://{place}",
    }

    @pytest.fixture(autouse=True)
    def brokers(self, kafka: Any, rabbitmq: Any) -> Iterator[None]:
        self.kafka, self.url = kafka.address, rabbitmq.address
        self.places = Places(self.url)
        yield
        self.places.close()

    @property
    def match(self) -> str:
        return f"{self.places.prefix}-in-*"

    def place(self, out: str, folder: Path) -> tuple[str, str, str]:
        action = self.ways_out[out]
        parts = urlsplit(self.url)
        broker = f"amqp://{parts.netloc}/"
        if "file:" in action:
            return f"{folder}/aside", f"file://{folder}/aside", broker
        if "kafka:" in action:
            topic = f"{self.places.prefix}-aside"
            admin = KafkaAdminClient(bootstrap_servers=self.kafka)
            configs = {"max.message.bytes": str(LARGE)}
            admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configs)])
            admin.close()
            return f"{self.kafka}/{topic}", f"kafka://{self.kafka}/{topic}", broker
        queue = self.places.queue("aside")
        url = f"amqp://{parts.netloc}//{queue}"
        return (f"{parts.netloc}///{queue}" if "amqp:" in action else queue), url, "original"

    def read(self, destination: str, name: str) -> list[Any]:
        return self.places.read(destination, as_sent)


class Publishers(Queues):
    """What is set aside when it is published."""

    ways_out: ClassVar[dict[str, str]] = Queues.ways_out | {
        "into a spool": "spool 100MiB",
        "into a buffer": "buffer 100MiB",
    }

    def messages(self) -> Mapping[str, Any]:
        return MESSAGES

    def fresh(self, name: str) -> str:
        return self.places.destination(MESSAGES[name][0])

    def send_bare(self, name: str, destination: str) -> None:
        self.places.channel.basic_publish(*arguments_of(name, destination))


def arguments_of(name: str, destination: str) -> tuple[Any, ...]:
    exchange, _, key = destination.rpartition("/")
    _, body, given = MESSAGES[name]
    return exchange, key, body, given


class TestPublisher(Publishers):
    """Through a `Publisher`."""

    @contextmanager
    def sending(self, rules: shield.Shield) -> Iterator[Callable[[str, str], Any]]:
        with Publisher(self.url, shield=rules) as used:
            yield lambda name, place: used.publish(*arguments_of(name, place))


class TestDecorated(Publishers):
    """By a function with `@publisher`."""

    @contextmanager
    def sending(self, rules: shield.Shield) -> Iterator[Callable[[str, str], Any]]:
        used: list[Any] = []

        def send(name: str, destination: str) -> Any:
            exchange, key, body, given = arguments_of(name, destination)
            at = publisher(self.url, exchange=exchange, routing_key=key, shield=rules)
            used.append(at(lambda: Publishing(body, given)))
            return used[-1].submit()

        yield send
        used[0].publisher.close()


class TestBlockingChannel(Publishers):
    """Through a channel of a `BlockingConnection`."""

    @contextmanager
    def sending(self, rules: shield.Shield) -> Iterator[Callable[[str, str], Any]]:
        before = set(threading.enumerate())
        with BlockingConnection(pika.URLParameters(self.url), shield=rules) as connection:
            channel = connection.channel()
            yield lambda name, place: channel.basic_publish(*arguments_of(name, place))
        gone(before)


class TestShieldedFunction(Publishers):
    """By a function that is handed a channel."""

    @contextmanager
    def sending(self, rules: shield.Shield) -> Iterator[Callable[[str, str], Any]]:
        before = set(threading.enumerate())

        @shielded(shield=rules)
        def send(channel: Any, name: str, place: str) -> None:
            channel.basic_publish(*arguments_of(name, place))

        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            yield lambda name, place: send(channel, name, place)
        gone(before)


class TestSelectChannel(Publishers):
    """Through a channel of an event loop's connection."""

    @contextmanager
    def sending(self, rules: shield.Shield) -> Iterator[Callable[[str, str], Any]]:
        before = set(threading.enumerate())
        loop = EventLoop(
            lambda *args, **more: SelectConnection(*args, shield=rules, **more), self.url
        )
        yield lambda name, place: loop.call(loop.channel.basic_publish, *arguments_of(name, place))
        loop.close()
        gone(before)


def gone(before: set[threading.Thread]) -> None:
    """Wait until the relay has ended: what left the channel is where it went."""
    for thread in set(threading.enumerate()) - before:
        if "closing" in thread.name:
            thread.join(30)


# --- consumers ------------------------------------------------------------------------------------

AN_HOUR_AGO = int(time.time()) - 3600
DOUBLE = b"d" + struct.pack(">d", 0.3)
ODD = [
    (b"double", DOUBLE),
    (b"float", b"f" + struct.pack(">f", -0.5)),
    (b"in an array", b"A" + struct.pack(">I", len(DOUBLE)) + DOUBLE),
    (b"in a table", b"F" + struct.pack(">I", len(DOUBLE) + 2) + b"\x01n" + DOUBLE),
    (b"short", b"s" + struct.pack(">h", -7)),
    (b"byte", b"b" + b"\xff"),
    (b"unsigned", b"i" + struct.pack(">I", 2**32 - 1)),
    (b"no text", long_string(b"\xff\xfe")),
    (b"null", b"V"),
    (b"scale", b"D\x02" + struct.pack(">i", 150)),
]
"""Values as clients in other languages write them."""
WRITTEN: dict[str, tuple[str, bytes, list[tuple[bytes, bytes]]]] = {
    "plain": ("direct", b"v", []),
    "odd values": ("direct", b"v", ODD),
    "the user's own shield-*": ("topic", b"v", [(b"shield-rule", b"V"), (b"shield-own-n", b"V")]),
    "by headers": ("headers", b"v", [(b"kind", long_string(b"main"))]),
    "to a queue": ("", b"", []),
    "2 MB": ("direct", os.urandom(2_000_000), []),
}


class TestConsumers(Queues):
    """What a consumer sets aside because it is old comes back to its queue, and to no other."""

    ways_back = ("by the command", "by the function")

    def messages(self) -> Mapping[str, Any]:
        return WRITTEN

    def fresh(self, name: str) -> str:
        return self.places.destination(WRITTEN[name][0])

    @property
    def match(self) -> str:
        return f"{self.places.prefix}-in-*"

    def rule(self, out: str, place: str, *, auto: bool) -> dict[str, Any]:
        action = self.ways_out[out].format(place=place)
        old = {"direction": "consume", "max_age": "1m", "over_limit": ["wait", action]}
        return {"name": "orders", "match": self.match} | old

    def send_bare(self, name: str, destination: str) -> None:
        exchange, _, key = destination.rpartition("/")
        _, body, headers = WRITTEN[name]
        fields = {DELIVERY_MODE: b"\x02", TIMESTAMP: struct.pack(">Q", AN_HOUR_AGO)}
        given: Any = Encoded(fields, list(headers) or None)
        self.places.channel.basic_publish(exchange, key, body, given)

    def read(self, destination: str, name: str) -> list[Any]:
        return self.places.read(destination, as_received)

    @contextmanager
    def sending(self, rules: shield.Shield) -> Iterator[Callable[[str, str], Any]]:
        """Write them; then consume until all are elsewhere."""
        written: list[str] = []

        def send(name: str, destination: str) -> None:
            self.send_bare(name, destination)
            written.append(destination)

        yield send
        handed: list[bytes] = []
        with BlockingConnection(pika.URLParameters(self.url), shield=rules) as connection:
            channel = connection.channel()
            for destination in set(written):
                queue = self.places._queues[destination][0]
                channel.basic_consume(queue, lambda *args: handed.append(args[3]))
            give_up = time.monotonic() + 60
            while rules.ledger().overflowed < len(written) and time.monotonic() < give_up:
                connection.process_data_events(0.2)
        assert handed == []
        assert rules.ledger().overflowed == len(written)


def as_received(method: Any, read: Any, body: bytes) -> tuple[Any, ...]:
    """Return what a consumer goes by: where it was published, as our headers say if they do."""
    one = Encoded.of(read)
    exchange = one.pop_text("x-original-exchange") or method.exchange
    key = one.pop_text("x-original-routingKey") or method.routing_key
    one.headers = [pair for pair in one.headers or () if pair[0] not in OURS] or None
    place = exchange.partition("-in-")[2].partition("-")[0], key[:5]
    return place, b"".join(one.encode()), body
