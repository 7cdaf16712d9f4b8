"""Every way of consuming, on a real Kafka and a real RabbitMQ, by one contract."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import kafka as bare
import pika
import pytest
from pika import BasicProperties

from integration.brokers import create_topic
from integration.event_loop import EventLoop
from integration.queues import Queues
from integration.reading import read
from shield import Shield
from shield_kafka import KafkaConsumer
from shield_rabbitmq import BlockingConnection, SelectConnection, wait_for_message
from tests.contracts.consumer import Consumer, ConsumerContract, Way

# --- Kafka ------------------------------------------------------------------------------------


class Polls(Consumer):
    """Commits what it was handed over. It alone is its group: rebalances are tested elsewhere."""

    def __init__(self, address: str, chosen: Shield, topic: str, group: str) -> None:
        super().__init__()
        self.client = KafkaConsumer(
            bootstrap_servers=address,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            consumer_timeout_ms=100,
            shield=chosen,
        )
        self.client.assign([bare.TopicPartition(topic, 0)])

    def take(self, most, within_s):
        for records in self.client.poll(within_s * 1000, max_records=most).values():
            self.got += [record.value for record in records]

    def done(self):
        self.client.poll(0, max_records=1)  # what was sent elsewhere is passed
        self.client.commit()

    def close(self):
        self.client.close()


class Iterates(Polls):
    def take(self, most, within_s):
        for record in self.client:
            self.got.append(record.value)
            most -= 1
            if not most:
                return

    def done(self):
        self.client.commit()


class KafkaWay(Way):
    kind: type[Polls] = Polls
    overtakes = False

    def __init__(self, address: str) -> None:
        self._address = address
        self._group = uuid.uuid4().hex

    def place(self):
        return create_topic(self._address, 1)

    def nowhere(self):
        return "not*legal"

    def overflow(self, place):
        return place

    def put(self, place, bodies, age_s=0.0):
        at_ms = int((time.time() - age_s) * 1000)
        with bare.KafkaProducer(bootstrap_servers=self._address) as producer:
            for body in bodies:
                producer.send(place, body, timestamp_ms=at_ms)

    def consumer(self, chosen, place):
        return self.kind(self._address, chosen, place, self._group)

    def left(self, place):
        records = read(self._address, place)
        with bare.KafkaConsumer(bootstrap_servers=self._address, group_id=self._group) as client:
            at = client.committed(bare.TopicPartition(place, 0)) or 0
        return [record.value for record in records if record.offset >= at]


class IterationWay(KafkaWay):
    kind = Iterates


class TestKafkaPoll(ConsumerContract):
    @pytest.fixture
    def way(self, kafka):
        return KafkaWay(kafka.address)


class TestKafkaIteration(ConsumerContract):
    @pytest.fixture
    def way(self, kafka):
        return IterationWay(kafka.address)


# --- RabbitMQ ---------------------------------------------------------------------------------


class Blocking(Consumer):
    """What is done with a blocking connection; subclasses say how it is asked."""

    def __init__(self, url: str, chosen: Shield, queue: str) -> None:
        super().__init__()
        self.queue = queue
        self.connection = BlockingConnection(pika.URLParameters(url), shield=chosen)
        self.channel = self.connection.channel()

    def done(self):
        if self.got:
            self.channel.basic_ack(0, multiple=True)
        self.connection.process_data_events(0)

    def close(self):
        if self.connection.is_open:
            self.connection.close()


class CalledBack(Blocking):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.channel.basic_consume(self.queue, lambda c, m, p, body: self.got.append(body))

    def take(self, most, within_s):
        self.connection.process_data_events(within_s)


class Draws(Blocking):
    def take(self, most, within_s):
        items = self.channel.consume(self.queue, inactivity_timeout=within_s)
        for method, _, body in items:
            if method is None:
                return
            self.got.append(body)
            most -= 1
            if not most:
                return


class Gets(Blocking):
    def take(self, most, within_s):
        method, _, body = self.channel.basic_get(self.queue)
        if method is None:
            self.connection.sleep(0.01)
        else:
            self.got.append(body)


class Waits(Blocking):
    def take(self, most, within_s):
        method, _, body = wait_for_message(self.channel, self.queue, timeout_s=within_s)
        if method is not None:
            self.got.append(body)


class Evented(Consumer):
    """A callback on an event loop, which runs on a thread of its own."""

    def __init__(self, url: str, chosen: Shield, queue: str) -> None:
        super().__init__()

        def connect(*args: Any, **kwargs: Any) -> SelectConnection:
            return SelectConnection(*args, shield=chosen, **kwargs)

        self.loop = EventLoop(connect, url)
        handle = lambda c, m, p, body: self.got.append(body)  # noqa: E731
        self.loop.call(self.loop.channel.basic_consume, queue, handle)

    def take(self, most, within_s):
        time.sleep(min(within_s, 0.02))

    def done(self):
        if self.got:
            self.loop.call(self.loop.channel.basic_ack, 0, True)

    def close(self):
        self.loop.close()


class RabbitMQWay(Way):
    def __init__(self, url: str, consumer: Callable[..., Consumer], *, keeps: bool) -> None:
        self._queues = Queues(url)
        self._make = consumer
        self.keeps = keeps

    def place(self):
        return self._queues.queue()

    def nowhere(self):
        return "not-there/key"

    def overflow(self, place):
        return f"/{place}"

    def put(self, place, bodies, age_s=0.0):
        properties = BasicProperties(timestamp=int(time.time() - age_s))
        for body in bodies:
            self._queues.channel.basic_publish("", place, body, properties)
        self._queues.channel.basic_qos()  # the answer comes behind all of it

    def consumer(self, chosen, place):
        return self._make(self._queues.url, chosen, place)

    def left(self, place):
        return self._queues.bodies(place)

    def end(self) -> None:
        self._queues.close()


class RabbitMQContract(ConsumerContract):
    kind: type[Consumer]
    keeps = True

    @pytest.fixture
    def way(self, rabbitmq) -> Iterator[Way]:
        way = RabbitMQWay(rabbitmq.address, self.kind, keeps=self.keeps)
        yield way
        way.end()


class TestRabbitMQCallback(RabbitMQContract):
    kind = CalledBack


class TestRabbitMQGenerator(RabbitMQContract):
    kind = Draws


class TestRabbitMQGet(RabbitMQContract):
    kind = Gets
    keeps = False


class TestRabbitMQWaitForMessage(RabbitMQContract):
    kind = Waits
    keeps = False


class TestRabbitMQEventLoop(RabbitMQContract):
    kind = Evented
