"""Round trips of Kafka's messages, on a real broker, read by librdkafka."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import confluent_kafka
import kafka as client
import pika
import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.partitioner import Partitioner
from kafka.serializer import JsonSerializer, Serializer

import shield
from shield_kafka import KafkaConsumer, KafkaProducer
from tests.contracts.round_trip import RoundTripContract

LARGE = 20_000_000
DAY_AGO_MS = int(time.time() * 1000) - 86_400_000
PARTITIONS = 6
OURS = ("shield-message-id", "shield-attempt")


class Nothing(Serializer):  # type: ignore[misc] # kafka-python is untyped
    """Makes None of whatever it is given."""

    def serialize(self, topic: str, headers: Any, data: Any) -> None:
        return None


class ByRegion(Partitioner):  # type: ignore[misc] # kafka-python is untyped
    """Chooses by something that is in the user's value."""

    def partition(self, topic: str, key: Any, key_bytes: Any, value: Any, *_: Any) -> int:
        return int(value["region"])


PLAIN: dict[str, Any] = {}
JSON_VALUES = {"value_serializer": JsonSerializer()}
JSON_KEYS = {"key_serializer": JsonSerializer()}
NOTHING = {"key_serializer": Nothing(), "value_serializer": Nothing()}
REGIONS = {"value_serializer": JsonSerializer(), "partitioner": ByRegion()}
OWN = [
    ("shield-criticality", b"sheddable"),
    ("shield-deadline", b"2099-01-01T00:00:00Z"),
    ("shield-user", b"\xff"),
    ("shield-original-destination", b"nowhere"),
    ("shield-original-broker", b"file:///nowhere"),
    ("shield-original-partition", b"99"),
    ("shield-rule", b"mine"),
]
HEADERS = [
    ("a", b"1"),
    ("a", b"2"),
    ("", b"empty name"),
    ("empty", b""),
    ("bin", bytes(range(256))),
]
MESSAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (PLAIN, {"value": b"v", "key": b"k"}),
    "without a key": (PLAIN, {"value": b"v"}),
    "tombstone": (PLAIN, {"key": b"k"}),
    "empty key and body": (PLAIN, {"value": b"", "key": b""}),
    "binary": (PLAIN, {"value": bytes(range(256)), "key": b"\xff\x00"}),
    "2 MB": (PLAIN, {"value": os.urandom(2_000_000), "key": b"k"}),
    "2 MB, compressible": (PLAIN, {"value": b"z" * 2_000_000, "key": b"k"}),
    "headers": (PLAIN, {"value": b"v", "key": b"k", "headers": HEADERS}),
    "the user's own shield-*": (PLAIN, {"value": b"v", "key": b"k", "headers": OWN}),
    "an explicit partition": (PLAIN, {"value": b"v", "key": b"k", "partition": 5}),
    "partition 0, without a key": (PLAIN, {"value": b"v", "partition": 0}),
    "an old timestamp": (PLAIN, {"value": b"v", "key": b"k", "timestamp_ms": DAY_AGO_MS}),
    "a bytearray": (PLAIN, {"value": bytearray(b"v"), "key": bytearray(b"k")}),
    "values serialized": (JSON_VALUES, {"value": {"v": [1, None]}, "key": b"k"}),
    "a value of None, serialized": (JSON_VALUES, {"value": None, "key": b"k"}),
    "keys serialized": (JSON_KEYS, {"value": b"v", "key": ["k", 1]}),
    "serialized to nothing": (NOTHING, {"value": "v", "key": "k"}),
    "a partitioner of the user's": (REGIONS, {"value": {"region": 4}, "key": b"k"}),
}


def as_read(message: confluent_kafka.Message, sent: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what is compared: a time, and without a key a partition, only where it was given."""
    headers = [pair for pair in message.headers() or () if pair[0] not in OURS]
    keyed = message.key() is not None or "partition" in sent
    return (
        message.key(),
        message.value(),
        headers,
        message.partition() if keyed else None,
        message.timestamp()[1] if "timestamp_ms" in sent else None,
    )


def ends_of(reader: confluent_kafka.Consumer, place: confluent_kafka.TopicPartition) -> Any:
    """Return the first and last offset; a topic just made has a leader after a moment."""
    give_up = time.monotonic() + 20
    while True:
        try:
            return reader.get_watermark_offsets(place, timeout=20)
        except confluent_kafka.KafkaException:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def read_all(address: str, topic: str) -> list[confluent_kafka.Message]:
    """Read a topic from its beginning to its end."""
    reader = confluent_kafka.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "fetch.message.max.bytes": LARGE,
            "log_level": 0,
        }
    )
    try:
        places = [confluent_kafka.TopicPartition(topic, n, 0) for n in range(PARTITIONS)]
        spans = [ends_of(reader, place) for place in places]
        expected = sum(high - low for low, high in spans)
        reader.assign(places)
        found: list[confluent_kafka.Message] = []
        while len(found) < expected:
            found += reader.consume(expected - len(found), timeout=5)
        return found
    finally:
        reader.close()


class Topics:
    """Makes topics on the shared Kafka that take large messages."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.prefix = f"round-{uuid.uuid4().hex[:8]}"
        self._made = 0
        self._admin = KafkaAdminClient(bootstrap_servers=address)

    def make(self, kind: str) -> str:
        self._made += 1
        name = f"{self.prefix}-{kind}-{self._made}"
        configs = {"max.message.bytes": str(LARGE)}
        self._admin.create_topics([NewTopic(name, PARTITIONS, 1, topic_configs=configs)])
        return name

    def close(self) -> None:
        self._admin.close()


class Kafkas(RoundTripContract):
    """What producers and consumers have in common."""

    @pytest.fixture(autouse=True)
    def brokers(self, kafka: Any, rabbitmq: Any) -> Iterator[None]:
        self.address, self.amqp = kafka.address, rabbitmq.address
        self.topics = Topics(kafka.address)
        self.bares = Producers(lambda **configs: client.KafkaProducer(**configs), self.address)
        yield
        self.bares.close()
        self.topics.close()

    @property
    def match(self) -> str:
        return f"{self.topics.prefix}-in-*"

    def fresh(self, name: str) -> str:
        return self.topics.make("in")

    def place(self, out: str, folder: Path) -> tuple[str, str, str]:
        action, cluster = self.ways_out[out], f"kafka://{self.address}"
        if "file:" in action:
            return f"{folder}/aside", f"file://{folder}/aside", cluster
        if "amqp:" in action:
            url = self._queue()
            return url.removeprefix("amqp://"), url, cluster
        topic = self.topics.make("aside")
        url = f"{cluster}/{topic}"
        return (url.removeprefix("kafka://") if "kafka:" in action else topic), url, "original"

    def _queue(self) -> str:
        queue = f"{self.topics.prefix}.aside"
        with pika.BlockingConnection(pika.URLParameters(self.amqp)) as connection:
            channel = connection.channel()
            channel.exchange_declare(queue, "fanout", durable=True)
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, queue)
        return f"{self.amqp.removesuffix('/')}/{queue}"

    def send_bare(self, name: str, destination: str) -> None:
        self.bares.send(name, destination).get(20)

    def read(self, destination: str, name: str) -> list[Any]:
        sent = self.sent(name)
        return [as_read(message, sent) for message in read_all(self.address, destination)]

    def sent(self, name: str) -> Mapping[str, Any]:
        """Return the arguments of a message's send."""
        arguments: Mapping[str, Any] = self.messages()[name][1]
        return arguments


class Producers:
    """One producer for each configuration that messages ask for."""

    def __init__(self, make: Callable[..., Any], address: str) -> None:
        self._make, self._address = make, address
        self._made: dict[int, Any] = {}
        self.futures: list[Any] = []

    def send(self, name: str, topic: str) -> Any:
        configs, message = MESSAGES[name]
        producer = self._made.get(id(configs))
        if producer is None:
            producer = self._made[id(configs)] = self._make(
                bootstrap_servers=self._address, max_request_size=LARGE, **configs
            )
        self.futures.append(producer.send(topic, **message))
        return self.futures[-1]

    def flush(self) -> None:
        for producer in self._made.values():
            producer.flush(30)

    def close(self) -> None:
        for producer in self._made.values():
            producer.close(10)


class TestProducers(Kafkas):
    """What a producer sets aside."""

    ways_out: ClassVar[dict[str, str]] = {
        "to a topic": "overflow {place}",
        "to Kafka by its URL": "overflow kafka://{place}",
        "to RabbitMQ": "overflow amqp://{place}",
        "to a file": "overflow file://{place}",
        "into a spool": "spool 100MiB",
        "into a buffer": "buffer 100MiB",
    }

    fates: ClassVar[set[str]] = {"sent", "overflowed", "spooled", "buffered"}

    def messages(self) -> Mapping[str, Any]:
        return MESSAGES

    @contextmanager
    def sending(self, rules: shield.Shield) -> Iterator[Callable[[str, str], Any]]:
        made = Producers(lambda **more: KafkaProducer(shield=rules, **more), self.address)
        try:
            yield made.send
            made.flush()
            assert {shield.fate(future) for future in made.futures} <= self.fates
        finally:
            made.close()


WRITTEN: dict[str, dict[str, Any]] = {
    "plain": {"value": b"v", "key": b"k"},
    "neither key nor value": {},
    "tombstone": {"key": b"k"},
    "empty key and body": {"value": b"", "key": b"", "partition": 1},
    "2 MB": {"value": os.urandom(2_000_000), "key": b"k"},
    "null and other headers": {
        "value": b"v",
        "key": b"k",
        "headers": [("null", None), ("null", b""), ("a", b"\xff"), ("null", None)],
    },
    "the user's own shield-*": {"value": b"v", "key": b"k", "headers": OWN},
    "a partition": {"value": b"v", "key": b"k", "partition": 5},
    "a partition, without a key": {"value": b"v", "partition": 3},
}
"""What others have written: librdkafka's arguments."""


class TestConsumers(Kafkas):
    """What a consumer sets aside because it is old; the topic keeps it, and gets it once more."""

    ways_out: ClassVar[dict[str, str]] = {
        "to a topic": "overflow {place}",
        "to Kafka by its URL": "overflow kafka://{place}",
        "to RabbitMQ": "overflow amqp://{place}",
        "to a file": "overflow file://{place}",
    }
    ways_back = ("by the command", "by the function")
    copies = 2

    def messages(self) -> Mapping[str, Any]:
        return WRITTEN

    def sent(self, name: str) -> Mapping[str, Any]:
        return WRITTEN[name] | {"timestamp": DAY_AGO_MS, "timestamp_ms": DAY_AGO_MS}

    def rule(self, out: str, place: str, *, auto: bool) -> dict[str, Any]:
        action = self.ways_out[out].format(place=place)
        old = {"direction": "consume", "max_age": "1h", "over_limit": [action]}
        return {"name": "orders", "match": self.match} | old

    def send_bare(self, name: str, destination: str) -> None:
        writer = confluent_kafka.Producer(
            {"bootstrap.servers": self.address, "message.max.bytes": LARGE}
        )
        writer.produce(destination, timestamp=DAY_AGO_MS, **WRITTEN[name])
        assert writer.flush(20) == 0

    @contextmanager
    def sending(self, rules: shield.Shield) -> Iterator[Callable[[str, str], Any]]:
        """Write them; then consume until all are elsewhere."""
        written: list[str] = []

        def send(name: str, destination: str) -> None:
            self.send_bare(name, destination)
            written.append(destination)

        yield send
        with KafkaConsumer(
            bootstrap_servers=self.address,
            auto_offset_reset="earliest",
            shield=rules,
        ) as consumer:
            topics = sorted(set(written))
            consumer.assign([TopicPartition(t, n) for t in topics for n in range(PARTITIONS)])
            give_up = time.monotonic() + 60
            while rules.ledger().overflowed < len(written) and time.monotonic() < give_up:
                assert consumer.poll(200) == {}
        assert rules.ledger().overflowed == len(written)
