"""The clients that are compared: how each offers a message, and how it takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import kafka
import pika
from kafka import TopicPartition
from pika import BasicProperties

from shield import Shield, fate
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher

AT_ONCE = 10
"""So many messages a consumer takes from its broker in one go: five milliseconds of its work."""
WAIT_S = 0.005


class Producer(Protocol):
    """Offers messages."""

    def offer(self, body: bytes, criticality: str, user: bytes) -> bool:
        """Hand one to the client; return whether it was shed."""

    def close(self) -> None:
        """Wait until the broker has all of it."""


class Consumer(Protocol):
    """Takes messages."""

    def take(self, stop: threading.Event) -> Iterator[bytes | None]:
        """Yield bodies until told to stop, and None while there are none.

        All that was yielded is consumed then, and nothing else is.
        """

    def close(self) -> None:
        """Say what was consumed, and disconnect."""


class KafkaOffers:
    """Through kafka-python, bare or shielded."""

    def __init__(self, address: str, topic: str, shield: Shield | None) -> None:
        self._producer: Any = (
            kafka.KafkaProducer(bootstrap_servers=address)
            if shield is None
            else KafkaProducer(bootstrap_servers=address, shield=shield)
        )
        self._topic = topic
        self._producer.partitions_for(topic)

    def offer(self, body: bytes, criticality: str, user: bytes) -> bool:
        headers = [("shield-criticality", criticality.encode())]
        future = self._producer.send(self._topic, body, key=user, headers=headers)
        return future.is_done and fate(future) == "dropped"

    def close(self) -> None:
        self._producer.flush()
        self._producer.close()


class BareRabbitOffers:
    """Through pika's BlockingConnection, without confirms: the fastest that it has."""

    def __init__(self, address: str, queue: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(address))
        self._channel = self._connection.channel()
        self._queue = queue

    def offer(self, body: bytes, criticality: str, user: bytes) -> bool:
        headers = {"shield-criticality": criticality, "user": user}
        self._channel.basic_publish("", self._queue, body, BasicProperties(headers=headers))
        return False

    def close(self) -> None:
        self._connection.close()


class RabbitOffers:
    """Through Shield's Publisher, which confirms everything."""

    def __init__(self, address: str, queue: str, shield: Shield) -> None:
        self._publisher = Publisher(address, shield=shield)
        self._queue = queue

    def offer(self, body: bytes, criticality: str, user: bytes) -> bool:
        headers = {"shield-criticality": criticality, "user": user}
        properties = BasicProperties(headers=headers)
        future = self._publisher.publish("", self._queue, body, properties)
        return future.done() and fate(future) == "dropped"

    def close(self) -> None:
        self._publisher.close()


class KafkaTakes:
    """Through kafka-python's consumer; what was consumed is committed as fast as Kafka takes it."""

    def __init__(self, address: str, topic: str) -> None:
        self._uncommitted = self._committing = False
        self._consumer = kafka.KafkaConsumer(
            bootstrap_servers=address,
            group_id=topic,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        numbers = self._consumer.partitions_for_topic(topic)
        places = [TopicPartition(topic, number) for number in sorted(numbers)]
        self._consumer.assign(places)
        for place in places:
            self._consumer.position(place)
        self._consumer.commit()

    def take(self, stop: threading.Event) -> Iterator[bytes | None]:
        while not stop.is_set():
            self._commit()
            batches = self._consumer.poll(WAIT_S * 1000, max_records=AT_ONCE)
            if not batches:
                yield None
            for records in batches.values():
                for record in records:
                    yield record.value
                self._uncommitted = True

    def _commit(self) -> None:
        """Commit what was consumed, while no commit is on its way: more would only wait."""
        if self._uncommitted and not self._committing:
            self._uncommitted, self._committing = False, True
            self._consumer.commit_async(callback=self._committed)

    def _committed(self, _offsets: object, _answer: object) -> None:
        self._committing = False

    def close(self) -> None:
        self._consumer.commit()
        self._consumer.close()


class RabbitTakes:
    """Through pika's `consume`; acknowledged one by one, a few handed out at a time."""

    def __init__(self, address: str, queue: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(address))
        self._channel = self._connection.channel()
        self._channel.basic_qos(prefetch_count=AT_ONCE)
        self._queue = queue

    def take(self, stop: threading.Event) -> Iterator[bytes | None]:
        taken = self._channel.consume(self._queue, inactivity_timeout=WAIT_S)
        for method, _properties, body in taken:
            yield body
            if method is not None:
                self._channel.basic_ack(method.delivery_tag)
            if stop.is_set():
                return

    def close(self) -> None:
        self._channel.cancel()
        self._connection.close()


def producer_of(broker: str, address: str, place: str, shield: Shield | None) -> Producer:
    """Connect one side's producer."""
    if broker == "kafka":
        return KafkaOffers(address, place, shield)
    if shield is None:
        return BareRabbitOffers(address, place)
    return RabbitOffers(address, place, shield)


def consumer_of(broker: str, address: str, place: str) -> Consumer:
    """Connect one side's consumer."""
    makers: dict[str, Callable[[], Consumer]] = {
        "kafka": lambda: KafkaTakes(address, place),
        "rabbitmq": lambda: RabbitTakes(address, place),
    }
    return makers[broker]()
