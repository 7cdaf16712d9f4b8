"""`shield demo` on RabbitMQ: publishers under Shield, plain pika to read back."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Self

from pika import BasicProperties
from pika.exceptions import AMQPError

from shield import Shield, ShieldError
from shield.demo import Demo, DemoQueue
from shield_rabbitmq.connection.pending_publish import Confirm
from shield_rabbitmq.demo.readback import RabbitMQReadback
from shield_rabbitmq.operations.broker_address import BrokerAddress
from shield_rabbitmq.publishing.publisher import Publisher

EXCHANGE = "shield-demo"
OVERFLOW = "shield-demo.overflow"
NARROW = 1
"""The window of the publisher whose queue is shown: one message on the wire at a time, so that
the broker's answers set the pace, and what comes faster waits in the queue."""
MEASURE_S = 0.3
SOME = 200
CLOSE_S = 15.0


class RabbitMQDemo(Demo[Shield]):
    """A real RabbitMQ: there is none to embed.

    Its two exchanges and their queues end with the run. Every message carries the run's own id in
    a header, so that those of another run beside it are not counted.
    """

    orders = f"{EXCHANGE}/orders"
    overflow = OVERFLOW
    audit = f"{EXCHANGE}/audit"
    clicks = f"{EXCHANGE}/clicks"
    next_steps = {
        "from shield_rabbitmq import publisher": "decorate what makes a message",
        "shield setup --broker rabbitmq --dry-run": "what your rules' overflow needs",
    }

    def __init__(self, address: str | None) -> None:
        self._place = BrokerAddress(address)
        self._run = ("shield-demo-run", uuid.uuid4().hex)
        self._narrow: Publisher | None = None

    def __enter__(self) -> Self:
        """Reach the broker, make exchanges and queues, and measure how fast it answers."""
        self._readback = RabbitMQReadback(self._place.connect(), self._run)
        self.title = f"RabbitMQ at {self._place}"
        _silence(logging.CRITICAL)
        try:
            for exchange in (EXCHANGE, OVERFLOW):
                self._readback.declare(exchange)
            for destination in (self.orders, self.audit, self.clicks):
                self._readback.bind(destination, *destination.split("/"))
            self._readback.bind(self.overflow, OVERFLOW, "#")
            self.queue = DemoQueue(self.clicks, self._pace(), self._length)
        except BaseException as error:
            self.__exit__()
            if isinstance(error, AMQPError):
                raise self._unusable(error) from error
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect: exchanges and queues go with the connection."""
        self._readback.close()
        _silence(logging.NOTSET)

    def producer(self, shield: Shield, name: str, destination: str) -> _Producer:
        """Return a publisher; that of the queue has a narrow window."""
        window = NARROW if destination == self.clicks else 1000
        publisher = Publisher(self._place.url, shield=shield, shield_producer=name, window=window)
        if window == NARROW:
            self._narrow = publisher
        return _Producer(publisher, destination, self._run)

    def count(self, destination: str) -> int:
        """Read the queue on to its end."""
        try:
            return self._readback.count(destination)
        except AMQPError as error:
            raise self._unusable(error) from error

    def _length(self) -> int:
        """Return how many messages wait for the write thread of the narrow publisher."""
        return 0 if self._narrow is None else self._narrow.signals.queue_messages or 0

    def _pace(self) -> float:
        """Return how many messages a second go through a narrow window."""
        unlimited = Shield({"shield": {"mode": "off"}})
        with Publisher(self._place.url, shield=unlimited, window=NARROW) as publisher:
            warming_up = _Producer(publisher, self.clicks, ("shield-demo-run", "none"))
            warming_up.send(b"").result(CLOSE_S)
            began, sent = time.monotonic(), 0
            while (took_s := time.monotonic() - began) < MEASURE_S:
                futures = [warming_up.send(b"") for _ in range(SOME)]
                sent += len([future.result(CLOSE_S) for future in futures])
        return sent / took_s

    def _unusable(self, error: AMQPError) -> ShieldError:
        return ShieldError(f"RabbitMQ at {self._place} cannot be used: {error}")


class _Producer:
    """One publisher whose messages are persistent and carry the run's id."""

    def __init__(self, publisher: Publisher, destination: str, run: tuple[str, str]) -> None:
        self._publisher = publisher
        self._address = destination.split("/")
        self._properties = BasicProperties(delivery_mode=2, headers=dict([run]))

    def send(self, body: bytes) -> Confirm:
        exchange, routing_key = self._address
        return self._publisher.publish(exchange, routing_key, body, self._properties)

    def close(self) -> None:
        self._publisher.close(CLOSE_S)


def _silence(level: int) -> None:
    """Keep what pika and the publishers log off the screen, or let it be again."""
    for name in ("pika", "shield.rabbitmq"):
        logging.getLogger(name).setLevel(level)
