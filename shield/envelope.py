"""A whole message, payload and all, for when it is kept on disk or carried elsewhere."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shield.headers import (
    ATTEMPT,
    BROKER,
    DESTINATION,
    MESSAGE_ID,
    PREFIX,
    PRODUCER,
    ROUTING_KEY,
    RULE,
    attempts_in,
)
from shield.message import Message

Headers = tuple[tuple[str, bytes], ...]

KEY, TIMESTAMP, PARTITION, NATIVE, TOMBSTONE, HEADERS = (
    f"shield-original-{name}"
    for name in ("key", "timestamp", "partition", "properties", "tombstone", "headers")
)


@dataclass(slots=True, unsafe_hash=True)
class Envelope:
    """One message as its client had it, in words that every broker shares. Not to be changed.

    (Were it frozen, making one would take seven times as long; every message kept makes two.)

    Args:
        destination: what rules match: the topic; `exchange/routing-key`; a queue's name.
        body: the serialized payload; None for Kafka's tombstone.
        kind: the scheme of clients that understand `native`: `kafka`, `amqp`.
        key: Kafka's key, serialized.
        headers: the user's own, values as bytes; a name may be there twice.
        routing_key: RabbitMQ's; None on Kafka.
        timestamp_ms: milliseconds since 1970, where the client was given one.
        partition: Kafka's, where the client was given one.
        native: what only clients of its kind understand: AMQP's properties, encoded.
        mandatory: whether it is an error on RabbitMQ that no queue takes it.
        producer: who sent it.
        marks: Shield's own headers: id, attempt and, while it is diverted, where it was going.
    """

    destination: str
    body: bytes | None
    kind: str
    key: bytes | None = None
    headers: Headers = ()
    routing_key: str | None = None
    timestamp_ms: int | None = None
    partition: int | None = None
    native: bytes = b""
    mandatory: bool = True
    producer: str = ""
    marks: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of body and key, as `Message.size`."""
        return len(self.body or b"") + len(self.key or b"")

    @property
    def exchange(self) -> str:
        """RabbitMQ's exchange; empty for the default one."""
        key = self.routing_key
        if key is None or self.destination == key:
            return ""
        return self.destination.removesuffix(f"/{key}")

    @property
    def id(self) -> str | None:
        """Return what it is known by for life, or None where it was never set aside."""
        return dict(self.marks).get(MESSAGE_ID)

    @property
    def broker(self) -> str | None:
        """Which broker it was going to; None for the one it is on, or where that is not known."""
        return dict(self.marks).get(BROKER)

    @property
    def attempt(self) -> int:
        """How often it has been set aside."""
        return attempts_in(dict(self.marks).get(ATTEMPT))

    def message(self) -> Message:
        """Return what policies see of it."""
        headers = (*self.headers, *self.marks)
        return Message(
            self.destination, self.size, self.producer, self.key, headers, self.routing_key
        )

    def marked(self, marks: Mapping[str, str]) -> Envelope:
        """Return it with these headers of ours and no others."""
        return Envelope(  # as `replace`, at half its cost: this runs for every message kept
            self.destination,
            self.body,
            self.kind,
            self.key,
            self.headers,
            self.routing_key,
            self.timestamp_ms,
            self.partition,
            self.native,
            self.mandatory,
            self.producer,
            tuple(marks.items()),
        )

    def of_broker(self, origin: str) -> Envelope:
        """Return it with a mark that says which broker it was going to."""
        return self.marked({**dict(self.marks), BROKER: origin})

    def set_aside(self, rule: str, origin: str) -> Envelope:
        """Return it with the headers of one that was diverted, whose way back is `restored`."""
        marks = {
            **dict(self.marks),
            DESTINATION: self.destination,
            RULE: rule,
            PRODUCER: self.producer,
        }
        if self.routing_key is not None:
            marks[ROUTING_KEY] = self.routing_key
        if origin:
            marks[BROKER] = origin
        return self.marked(marks)

    def all_headers(self) -> Headers:
        """Return the user's headers, then ours: what a broker of its own kind is given."""
        return (*self.headers, *[(name, text.encode()) for name, text in self.marks])

    # --- carried elsewhere ----------------------------------------------------------------------

    def foreign_headers(self, kind: str) -> Headers:
        """Return all headers, with those that keep what a broker of that kind has no field for."""
        return (*self.all_headers(), *((n, t.encode()) for n, t in self._beyond(kind).items()))

    def _beyond(self, kind: str) -> dict[str, str]:
        kept: dict[str, str] = {}
        if self.kind == kind:
            return kept
        if self.key is not None and kind != "kafka":
            kept[KEY] = _text(self.key)
        if self.timestamp_ms is not None and kind != "kafka":
            kept[TIMESTAMP] = str(self.timestamp_ms)
        if self.body is None and kind != "kafka":
            kept[TOMBSTONE] = "1"
        if kind != "kafka" and not _fit_elsewhere(self.headers):
            kept[HEADERS] = json.dumps([(name, _text(value)) for name, value in self.headers])
        if self.native:
            kept[NATIVE] = _text(self.native)
        return kept

    # --- and back -------------------------------------------------------------------------------

    def restored(self) -> Envelope:
        """Return what was diverted as it was before, with its id and attempt count alone.

        Beside them it keeps which broker it was going to, where that is another, for who sends
        it. An envelope whose headers do not say where it was going comes back as it is.
        """
        marks = dict(self.marks)
        destination = marks.get(DESTINATION)
        if destination is None:
            return self
        kept = {name: marks[name] for name in (MESSAGE_ID, ATTEMPT, BROKER) if name in marks}
        routing_key = marks.get(ROUTING_KEY)
        kind = "kafka" if routing_key is None else "amqp"
        native = self.native if kind == self.kind else b""
        return replace(
            self,
            destination=destination,
            routing_key=routing_key,
            kind=kind,
            native=_bytes(marks[NATIVE]) if NATIVE in marks else native,
            key=_bytes(marks[KEY]) if KEY in marks else self.key,
            body=None if TOMBSTONE in marks else self.body,
            timestamp_ms=int(marks[TIMESTAMP]) if TIMESTAMP in marks else self.timestamp_ms,
            partition=None,
            headers=_headers(marks[HEADERS]) if HEADERS in marks else self.headers,
            producer=marks.get(PRODUCER, self.producer),
            marks=tuple(kept.items()),
        )


def split_headers(headers: Headers) -> tuple[Headers, tuple[tuple[str, str], ...]]:
    """Return the user's headers, and ours as text."""
    if not headers:
        return (), ()
    own = tuple(pair for pair in headers if not _is_ours(pair[0]))
    marks = tuple(
        (name, value.decode("utf-8", "backslashreplace"))
        for name, value in headers
        if _is_ours(name)
    )
    return own, marks


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX)


def _fit_elsewhere(headers: Headers) -> bool:
    """Tell whether other brokers can hold them: each name once, and none of them long."""
    names = {name for name, _ in headers}
    return len(names) == len(headers) and all(0 < len(name.encode()) <= 128 for name in names)


def _headers(text: str) -> Headers:
    try:
        return tuple((name, _bytes(value)) for name, value in json.loads(text))
    except (ValueError, TypeError):  # not of our making
        return ()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
