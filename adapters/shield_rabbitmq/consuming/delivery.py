"""One message that a consumer, or a `basic_get`, was given by the broker."""

from __future__ import annotations

import time
from typing import Any

from pika import BasicProperties

from shield import Delivery
from shield.chain.deferred import DeferredDelivery
from shield_rabbitmq.channels.channel_state import headers_of


class BrokerDelivery:
    """A message on its way to the user's code, with what the rules have said of it so far."""

    __slots__ = ("answered", "body", "enqueued_at_s", "held", "kept", "method", "properties", "tag")

    enqueued_at_s: float
    """When it began to wait, in seconds of the Shield's clock."""

    def __init__(self, method: Any, properties: BasicProperties, body: bytes) -> None:
        self.method = method
        self.properties = properties
        self.body = body
        self.tag: int | None = method.delivery_tag
        """What it is acknowledged by; None where that is not to be: the broker has it again."""
        self.held: DeferredDelivery | None = None
        self.answered = False
        """Whether it is known what became of it elsewhere."""
        self.kept = False
        """Whether `basic_get` keeps it, as it could not go elsewhere."""

    @property
    def waits_for_an_ack(self) -> bool:
        """Whether it may be handed over once something is acknowledged."""
        return self.held is not None and self.held.over.retry_after_s is None

    @property
    def is_stuck(self) -> bool:
        """Whether it could not go elsewhere, and its chain has run out."""
        return self.held is not None and self.held.stuck

    def let_go(self) -> None:
        """Count it as gone back to its broker, if it was ever offered."""
        if self.held is not None:
            self.held.let_go()


def delivery_of(
    queue: str, consumer: str, now: float, method: Any, properties: BasicProperties, body: bytes
) -> Delivery:
    """Return a message as rules see it, `now` in seconds of the Shield's clock.

    Its deadline is known where it has an expiration and says when it was published: RabbitMQ
    counts that from when the message came into the queue, and tells nobody when that was.
    """
    headers = headers_of(properties) if properties.headers else None
    delivery = Delivery(queue, len(body), consumer, None, headers, method.routing_key)
    written_s = properties.timestamp
    if written_s is not None:
        delivery.written_s = float(written_s)
        if properties.expiration is not None:
            delivery.deadline = _deadline(properties.expiration, float(written_s), now)
    return delivery


def _deadline(expiration: Any, written_s: float, now: float) -> float | None:
    text = str(expiration)
    if not (text.isdecimal() and text.isascii()):
        return None
    return now + written_s + int(text) / 1000 - time.time()
