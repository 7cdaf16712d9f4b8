from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import confluent_kafka
import kafka
import pytest
from kafka import TopicPartition

import shield
from shield_kafka import KafkaConsumer, KafkaProducer
from shield_kafka.demo.embedded import API_VERSION, EmbeddedKafka

Producers = Callable[..., KafkaProducer]
Consumers = Callable[..., KafkaConsumer]
Read = Callable[[str], list[confluent_kafka.Message]]

_names = itertools.count()


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[str]:
    """Librdkafka's mock cluster: real TCP, no broker to install."""
    cluster = EmbeddedKafka()
    yield cluster.bootstrap
    del cluster


@pytest.fixture
def topic(bootstrap: str) -> str:
    """A topic of this test's own; the mock cluster makes it on first use."""
    return f"orders-{next(_names)}"


@pytest.fixture
def producers(bootstrap: str) -> Iterator[Producers]:
    """Make shielded producers that are closed at the end of the test."""
    with ExitStack() as stack:

        def make(rules: list[dict[str, Any]] | shield.Shield = (), **configs: Any) -> KafkaProducer:
            chosen = (
                rules if isinstance(rules, shield.Shield) else shield.Shield({"rules": [*rules]})
            )
            configs = {"api_version": API_VERSION, "max_block_ms": 5000} | configs
            producer = KafkaProducer(bootstrap_servers=bootstrap, shield=chosen, **configs)
            stack.callback(producer.close, timeout=5)
            return producer

        yield make


@pytest.fixture
def read(bootstrap: str) -> Read:
    """Read a topic back with another client, from its beginning to its end."""

    def read(topic: str) -> list[confluent_kafka.Message]:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
        try:
            partitions = [
                confluent_kafka.TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING)
                for number in consumer.list_topics(topic, timeout=5).topics[topic].partitions
            ]
            expected = sum(
                high - low
                for low, high in (consumer.get_watermark_offsets(p, timeout=5) for p in partitions)
            )
            consumer.assign(partitions)
            messages: list[confluent_kafka.Message] = []
            while len(messages) < expected:
                messages += consumer.consume(expected - len(messages), timeout=5)
            return messages
        finally:
            consumer.close()

    return read


@pytest.fixture
def written(bootstrap: str, topic: str) -> Callable[..., str]:
    """Write records into one partition of this test's topic with the bare client."""

    def write(bodies: Iterable[bytes], **more: Any) -> str:
        with kafka.KafkaProducer(bootstrap_servers=bootstrap, api_version=API_VERSION) as producer:
            for body in bodies:
                producer.send(topic, body, partition=0, **more)
            producer.flush(10)
        return topic

    return write


@pytest.fixture
def consumers(bootstrap: str) -> Iterator[Consumers]:
    """Make shielded consumers that are closed at the end of the test.

    Without a group they read partition 0 of the topic from its beginning: joining one takes the
    mock cluster three seconds.
    """
    with ExitStack() as stack:

        def make(
            topic: str, rules: list[dict[str, Any]] | shield.Shield = (), **configs: Any
        ) -> KafkaConsumer:
            chosen = (
                rules if isinstance(rules, shield.Shield) else shield.Shield({"rules": [*rules]})
            )
            topics = [topic] if configs.get("group_id") else []
            configs = {"api_version": API_VERSION, "auto_offset_reset": "earliest"} | configs
            consumer = KafkaConsumer(*topics, bootstrap_servers=bootstrap, shield=chosen, **configs)
            stack.callback(consumer.close, timeout_ms=5000)
            if not topics:
                consumer.assign([TopicPartition(topic, 0)])
            return consumer

        yield make
