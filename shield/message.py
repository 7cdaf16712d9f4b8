"""The broker-neutral view of one publish or delivery."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from shield.signals import Signals

Headers = Mapping[str, object] | Iterable[tuple[str, object]]


class Message:
    """What policies, hooks and actions see of one publish. Never holds the payload.

    Args:
        destination: what rules match: the topic; `exchange/routing-key`; the queue's name alone
            for RabbitMQ's default exchange.
        size: bytes of body and key as they go on the wire.
        producer: who sends it; quotas with `per = "producer"` count by it.
        key: Kafka's message key as bytes, or None.
        headers: as the client holds them: pairs (Kafka) or a mapping (RabbitMQ); None for none.
        routing_key: RabbitMQ's routing key; None on Kafka.
        signals: what the broker tells the client that sends it; None where the client gives none.

    `priority`, `deadline` (monotonic seconds) and `tenant` are None until a classifier sets them.
    `aside` is whether it is, or was before it came back, set aside: buffered, spooled, overflowed.
    `draw` is a number from 0 to 1 for policies that decide by chance, so that asking again says
    the same; the first of them draws it when the message is offered. `messages` is 1, but for a
    run of deliveries (`shield.Delivery`), which are decided on together.
    `id` is there once it has been set aside: what it is known by for life (`shield-message-id`).
    """

    direction: ClassVar[str] = "publish"
    """Which rules apply to it."""

    __slots__ = (
        "aside",
        "deadline",
        "destination",
        "draw",
        "headers",
        "id",
        "key",
        "messages",
        "priority",
        "producer",
        "routing_key",
        "signals",
        "size",
        "tenant",
    )

    id: str
    """Unset, which costs nothing, until `shield.headers.identity` draws it."""

    def __init__(
        self,
        destination: str,
        size: int,
        producer: str = "",
        key: bytes | None = None,
        headers: Headers | None = None,
        routing_key: str | None = None,
        signals: Signals | None = None,
    ) -> None:
        self.destination = destination
        self.size = size
        self.producer = producer
        self.key = key
        self.headers = headers
        self.routing_key = routing_key
        self.signals = signals
        self.priority: str | None = None
        self.deadline: float | None = None
        self.tenant: Hashable = None
        self.aside = False
        self.draw: float | None = None
        self.messages = 1

    def header(self, name: str) -> str | None:
        """Return the last header of that name as text, or None where there is none."""
        if not self.headers:
            return None
        if isinstance(self.headers, Mapping):
            return _as_text(self.headers.get(name))
        found = None
        for key, value in self.headers:
            if key == name:
                found = value
        return _as_text(found)

    def __repr__(self) -> str:
        return f"Message({self.destination!r}, {self.size} B, producer={self.producer!r})"


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value)
