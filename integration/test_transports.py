"""Messages that go to another broker, and back, on real ones."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from integration.queues import Queues
from shield.testing import TransportContract


def kafka_url(address: str, topic: str) -> str:
    return f"kafka://{address}/{topic}"


def amqp_url(address: str, *names: str) -> str:
    """The URL of a name on the broker at that address, in its default virtual host."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}//{'/'.join(names)}"


class TestKafkaTransport(TransportContract):
    """A topic with one partition."""

    @pytest.fixture(autouse=True)
    def _broker(self, kafka, new_topic):
        self.new = lambda: kafka_url(kafka.address, new_topic(1))

    def place(self):
        return self.new()


class TestAmqpTransport(TransportContract):
    """A queue, by way of the default exchange."""

    @pytest.fixture(autouse=True)
    def _broker(self, rabbitmq):
        with Queues(rabbitmq.address) as queues:
            self.queues, self.address = queues, rabbitmq.address
            yield

    def place(self):
        self.queue = self.queues.queue()
        return amqp_url(self.address, "", self.queue)

    def _open(self, place):
        return super()._open(place.replace("///", "//"))
