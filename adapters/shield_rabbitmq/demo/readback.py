"""Counts one run's messages on the broker, with plain pika."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pika import BasicProperties, BlockingConnection

from shield import ShieldError

GIVE_UP_S = 10.0
MOST = 10_000


class RabbitMQReadback:
    """Queues of its own, bound to where a run publishes; counts what carries a header.

    The queues are exclusive: they end with the connection, and so does an exchange that is only
    bound to them.

    Args:
        connection: to be used here alone; closed by `close`.
        header: name and value that the run's messages carry.
    """

    def __init__(self, connection: BlockingConnection, header: tuple[str, str]) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._header, self._value = header
        self._queues: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def declare(self, exchange: str) -> None:
        """Make a topic exchange that ends with the last of its queues."""
        self._channel.exchange_declare(exchange, "topic", auto_delete=True)

    def bind(self, destination: str, exchange: str, routing_key: str) -> None:
        """Keep what is published there with that key, for `count(destination)`."""
        made = self._channel.queue_declare("", exclusive=True, durable=True)
        queue = self._queues[destination] = made.method.queue
        self._channel.queue_bind(queue, exchange, routing_key)

    def count(self, destination: str) -> int:
        """Read the queue to its present end and return how many of the run came there.

        Raises:
            ShieldError: nothing comes for ten seconds, although there is more.
        """
        queue = self._queues[destination]
        left = self._channel.queue_declare(queue, passive=True).method.message_count
        while left:
            some = min(left, MOST)
            self._take(queue, some, destination)
            left -= some
        return self._counts[destination]

    def close(self) -> None:
        """Disconnect."""
        if self._connection.is_open:
            self._connection.close()

    def _take(self, queue: str, messages: int, destination: str) -> None:
        """Take as many messages as are there: no more are handed out before they are acked."""
        self._channel.basic_qos(prefetch_count=messages)
        for method, properties, _body in self._channel.consume(queue, inactivity_timeout=GIVE_UP_S):
            if method is None:
                raise ShieldError(f"the broker does not hand out the rest of {destination!r}")
            self._counts[destination] += self._is_of_run(properties)
            messages -= 1
            if not messages:
                self._channel.basic_ack(method.delivery_tag, multiple=True)
                break
        self._channel.cancel()

    def _is_of_run(self, properties: BasicProperties) -> bool:
        headers: dict[str, Any] = properties.headers or {}
        return headers.get(self._header) == self._value
