"""Exchanges and queues for a test, and what they hold, seen by pika alone."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import Any, Self

import pika

_numbers = itertools.count()


@dataclass(frozen=True)
class Stored:
    """One message that a queue held."""

    body: bytes
    properties: pika.BasicProperties


class Queues:
    """A connection that declares durable exchanges and queues and reads them out."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()

    def exchange(self, kind: str = "direct") -> str:
        """Declare a fresh exchange; return its name."""
        name = _fresh("exchange")
        self.channel.exchange_declare(name, kind, durable=True)
        return name

    def queue(self, exchange: str = "", routing_key: str | None = None, **arguments: Any) -> str:
        """Declare a fresh queue, bound to the exchange by that key; return its name.

        Arguments have `_` for each dash: `x_max_length=10`.
        """
        name = _fresh("queue")
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.channel.queue_declare(name, durable=True, arguments=given)
        if exchange:
            self.channel.queue_bind(name, exchange, name if routing_key is None else routing_key)
        return name

    def depth(self, queue: str) -> int:
        """How many messages the queue holds."""
        found = self.channel.queue_declare(queue, passive=True)
        return int(found.method.message_count)

    def take(self, queue: str) -> list[Stored]:
        """Take all messages out of the queue, oldest first."""
        taken: list[Stored] = []
        for _ in range(self.depth(queue)):
            _, properties, body = self.channel.basic_get(queue, auto_ack=True)
            taken.append(Stored(body, properties))
        return taken

    def bodies(self, queue: str) -> list[bytes]:
        """Take all bodies out of the queue."""
        return [stored.body for stored in self.take(queue)]

    def close(self) -> None:
        """Close the connection."""
        if self._connection.is_open:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _fresh(kind: str) -> str:
    return f"{kind}-{os.getpid()}-{next(_numbers)}"
