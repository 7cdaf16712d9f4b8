"""The broker-neutral view of one publish or delivery."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from shield.signals import Signals

MOST_NAME_BYTES = 255
"""What AMQP has room for."""
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

    Before-hooks add headers with `add_header`. What they see as `headers` cannot be written to: it
    is the caller's.
    """

    direction: ClassVar[str] = "publish"
    """Which rules apply to it."""

    __slots__ = (
        "added",
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

    added: list[tuple[str, str | bytes]]
    """What before-hooks have added; unset where none has. Clients send it (`added_to`)."""
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

    def add_header(self, name: str, value: str | bytes) -> None:
        """Let the message go out with one more header, whichever way it goes.

        For `shield_before_publish`, the same for every client. What the caller has handed to it
        stays as it is. On Kafka a name may be there several times, and text becomes UTF-8; on
        RabbitMQ a header of that name is replaced.

        Raises:
            TypeError, ValueError: no client could send it.
        """
        if not isinstance(name, str) or not isinstance(value, str | bytes):
            raise TypeError(f"a header is a text, and a text or bytes; found {name!r}: {value!r}")
        if not 0 < len(name.encode()) <= MOST_NAME_BYTES:
            raise ValueError(f"a header's name has 1 to {MOST_NAME_BYTES} bytes; found {name!r}")
        if isinstance(value, str):
            value.encode()  # not every text can be UTF-8
        try:
            self.added.append((name, value))
        except AttributeError:
            self.added = [(name, value)]
        self.headers = added_to(self.headers, [(name, value)], mapping=self.routing_key is not None)

    def protect_headers(self) -> None:
        """Let plugins see headers that they cannot write to."""
        if self.headers is not None:
            self.headers = _frozen(self.headers)

    def __repr__(self) -> str:
        return f"Message({self.destination!r}, {self.size} B, producer={self.producer!r})"


def added_headers(message: Message) -> list[tuple[str, str | bytes]]:
    """Return what before-hooks have added, in order; mostly nothing."""
    return getattr(message, "added", [])


def added_to(
    headers: Headers | None, added: Iterable[tuple[str, str | bytes]], *, mapping: bool
) -> Headers:
    """Return headers of the same kind with more: new ones, for those are not ours."""
    if isinstance(headers, Mapping) or (headers is None and mapping):
        return MappingProxyType({**(headers or {}), **dict(added)})
    return (*(headers or ()), *added)


def _frozen(value: Any) -> Any:
    """Return a view of headers through which nothing can be changed, tables within them neither."""
    if isinstance(value, Mapping):
        return MappingProxyType({name: _frozen(item) for name, item in value.items()})
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    return bytes(value) if isinstance(value, bytearray) else value


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value)
