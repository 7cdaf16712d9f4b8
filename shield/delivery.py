"""The broker-neutral view of one delivery, or of a run of them."""

from __future__ import annotations

from typing import ClassVar

from shield.message import Headers, Message


class Delivery(Message):
    """What policies, hooks and actions see of a message that a consumer is about to hand over.

    A run stands for deliveries of one destination that follow each other, where nothing needs to
    tell them apart: it is admitted whole or not at all (`Shield.engine.receive_run`).

    Args:
        destination: the topic, or RabbitMQ's queue.
        size: bytes of body and key; of a run, of all of them.
        consumer: who receives it; to rules and ledger that is its `producer`.
        key: Kafka's message key as bytes, or None.
        headers: as the client holds them: pairs (Kafka) or a mapping (RabbitMQ); None for none.
        routing_key: what it was published with on RabbitMQ; None on Kafka.
        written_s: when it was published, in seconds since 1970; None where nothing says so. Of a
            run that of the oldest.
        messages: how many they are.
    """

    __slots__ = ("written_s",)

    direction: ClassVar[str] = "consume"

    def __init__(
        self,
        destination: str,
        size: int,
        consumer: str = "",
        key: bytes | None = None,
        headers: Headers | None = None,
        routing_key: str | None = None,
        *,
        written_s: float | None = None,
        messages: int = 1,
    ) -> None:
        self.destination = destination  # as the base does it, less a call: for every delivery
        self.size = size
        self.producer = consumer
        self.key = key
        self.headers = headers
        self.routing_key = routing_key
        self.signals = None
        self.priority = None
        self.deadline = None
        self.tenant = None
        self.aside = False
        self.draw = None
        self.written_s = written_s
        self.messages = messages

    def add_header(self, name: str, value: str | bytes) -> None:
        """Raise TypeError: it is handed over as its broker has delivered it."""
        raise TypeError("a delivery is handed over with the headers that it came with")

    def __repr__(self) -> str:
        many = f"{self.messages} x " if self.messages > 1 else ""
        return f"Delivery({many}{self.destination!r}, {self.size} B, consumer={self.producer!r})"
