"""How a queue's messages are taken in: read ahead, or only as many as are asked for."""

from __future__ import annotations

import logging
import time
from typing import Any

from pika import BasicProperties
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from shield_rabbitmq.client.properties import unrouted
from shield_rabbitmq.client.raw_properties import Encoded

log = logging.getLogger("shield.rabbitmq")
DELIVERY_COUNT = "x-delivery-count"
"""How often a message came back to its quorum queue; the broker adds it when it hands it out."""
GOT_WELL = 300
PREFETCH = 100
"""After how many that were got a consumer takes over, and how many it may hold."""
ASKED_FOR_S = 1.0
"""How long one who asked for messages is taken to want them, where he does not ask again."""


class Demand:
    """How many messages are wanted now. Thread-safe: one number and when it was said."""

    def __init__(self) -> None:
        self._asked = 0, 0.0

    def ask(self, messages: int) -> None:
        """Want so many, in place of what was wanted before."""
        self._asked = messages, time.monotonic()

    @property
    def now(self) -> int:
        """How many are wanted: none, where nobody has asked for a second."""
        messages, asked_s = self._asked
        return messages if time.monotonic() - asked_s < ASKED_FOR_S else 0


class PollConsumer:
    """Brings as many messages as are wanted, and gives none back.

    A quorum queue counts what comes back, and drops it beyond its delivery limit. So they are got
    one by one, until that went well for a while; then a consumer with a small prefetch, which is
    faster, is there for good. It is never cancelled: what the broker is just handing to it then
    would be counted, too. Who pauses keeps what it has brought.
    """

    def __init__(self, connection: Any, channel: Any, queue: str, deliver: Any) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._deliver = deliver
        self._prefetch = 0
        """Of the latest consumer; 0 while there is none."""
        self._well = 0
        """How many have been got in a row that had not come back before."""

    @property
    def consumes(self) -> bool:
        """Whether there is a consumer."""
        return self._prefetch > 0

    def serve(self, wanted: int, within_s: float) -> None:
        """Get what is wanted, or read and write for a while where there is none."""
        if self._prefetch:
            self._connection.process_data_events(within_s)
            return
        for _ in range(wanted):
            method, properties, body = self._channel.basic_get(self._queue)
            if method is None:
                self._connection.process_data_events(within_s)
                return
            self._deliver(self._channel, method, properties, body)
            self._well = 0 if came_back(properties) else self._well + 1
        self._connection.process_data_events(0 if wanted > 0 else within_s)
        if self._well >= GOT_WELL:
            self.consume(PREFETCH)

    def consume(self, prefetch: int) -> None:
        """Have a consumer from now on, beside what is there."""
        self._prefetch = prefetch
        self._channel.basic_qos(prefetch_count=prefetch)
        self._channel.basic_consume(self._queue, self._deliver)

    def make_room(self, staying: int) -> bool:
        """Have one more consumer where half of what the latest may hold stays with it."""
        if not self._prefetch or staying < self._prefetch // 2:
            return False
        self.consume(self._prefetch)
        return True


def came_back(properties: BasicProperties) -> int:
    """Return how often a message came back to its queue before it was handed out this time."""
    count = (properties.headers or {}).get(DELIVERY_COUNT, 0)
    return count if isinstance(count, int) else 0


class Anew:
    """Puts messages anew at the end of their queue, where the broker begins to count again.

    For what it might drop when it comes back once more. The copy is confirmed before the original
    is acknowledged, on a channel of its own: one that the broker closes takes nothing with it.
    """

    def __init__(self, connection: Any, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._channel: Any = None

    def put(self, properties: BasicProperties, body: bytes) -> bool:
        """Return whether the broker has confirmed a copy.

        Raises:
            AMQPError: the connection is lost.
        """
        try:
            copy = unrouted(Encoded.of(properties))
            copy.take_off(DELIVERY_COUNT)
            self._open().basic_publish("", self._queue, body, copy, mandatory=True)
        except (ChannelClosedByBroker, NackError, UnroutableError, ValueError) as error:
            log.warning("a message cannot be put anew into queue %s: %r", self._queue, error)
            return False
        return True

    def _open(self) -> Any:
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        return self._channel
