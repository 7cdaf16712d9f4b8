"""A whole message, payload and all, for when it is kept on disk or carried elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shield import headers as ours
from shield.headers import Headers, Marks
from shield.message import Message

if TYPE_CHECKING:
    from shield.signing import Signer


@dataclass(slots=True, unsafe_hash=True)
class Envelope:
    """One message as its client had it, in words that every broker shares. Not to be changed.

    (Were it frozen, making one would take seven times as long; every message kept makes two.)

    Args:
        destination: what rules match: the topic; `exchange/routing-key`; a queue's name.
        body: the serialized payload; None for Kafka's tombstone.
        kind: the scheme of clients that understand `native`: `kafka`, `amqp`.
        key: Kafka's key, serialized.
        headers: the user's own, values as bytes or null; a name may be there twice.
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
    marks: Marks = ()

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
        return ours.id_in(dict(self.marks).get(ours.MESSAGE_ID))

    @property
    def broker(self) -> str | None:
        """Which broker it was going to; None for the one it is on, or where that is not known."""
        broker: str | None = ours.read(dict(self.marks), ours.BROKER, None)
        return broker

    @property
    def attempt(self) -> int:
        """How often it has been set aside."""
        return ours.attempts_in(dict(self.marks).get(ours.ATTEMPT))

    @property
    def is_diverted(self) -> bool:
        """Whether it says where it was going before it was set aside."""
        return any(name == ours.DESTINATION for name, _ in self.marks)

    @property
    def fault(self) -> str | None:
        """What cannot be read of its headers of ours; None where all can, as they mostly can."""
        return ours.wrong_with(self.marks)

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
        return self.marked({**dict(self.marks), ours.BROKER: origin})

    def set_aside(self, rule: str, origin: str) -> Envelope:
        """Return it with the headers of one that was diverted, whose way back is `restored`."""
        marks = {
            **dict(self.marks),
            ours.DESTINATION: self.destination,
            ours.RULE: rule,
            ours.PRODUCER: self.producer,
        }
        if self.routing_key is not None:
            marks[ours.ROUTING_KEY] = self.routing_key
        if origin:
            marks[ours.BROKER] = origin
        return self.diverted(marks)

    def diverted(self, marks: Mapping[str, str], signer: Signer | None = None) -> Envelope:
        """Return it as it is sent aside, with these headers of ours, signed where there is a key.

        Beside them go timestamp and partition, where its client was given them: what holds it
        stamps it anew, so that it is kept as long as what comes in now.
        """
        marks = dict(marks)
        if self.routing_key is None:  # else its properties have it
            if self.timestamp_ms is not None and 0 <= self.timestamp_ms <= ours.LAST_MS:
                marks[ours.TIMESTAMP] = str(self.timestamp_ms)
            if self.partition is not None:
                marks[ours.PARTITION] = str(self.partition)
        if signer is not None:
            marks[ours.SIGNATURE] = signer.sign(marks, self.body, self.key)
        return self.marked(marks)

    def all_headers(self) -> Headers:
        """Return the user's headers, then ours: what a broker of its own kind is given."""
        if not self.marks:
            return self.headers
        own = ours.escaped(self.headers) if self.is_diverted else self.headers
        return (*own, *[(name, text.encode("utf-8", "replace")) for name, text in self.marks])

    # --- carried elsewhere ----------------------------------------------------------------------

    def foreign_headers(self, kind: str) -> Headers:
        """Return all headers, with those that keep what a broker of that kind has no field for."""
        return (*self.all_headers(), *((n, t.encode()) for n, t in self._beyond(kind).items()))

    def _beyond(self, kind: str) -> dict[str, str]:
        kept: dict[str, str] = {}
        if self.kind == kind or not self.is_diverted:
            return kept
        if self.key is not None and kind != "kafka":
            kept[ours.KEY] = ours.encoded(self.key)
        if self.body is None and kind != "kafka":
            kept[ours.TOMBSTONE] = "1"
        if kind != "kafka" and not _fit_elsewhere(self.headers):
            kept[ours.HEADERS] = ours.encoded_headers(self.headers)
        if self.native:
            kept[ours.NATIVE] = ours.encoded(self.native)
        return kept

    # --- and back -------------------------------------------------------------------------------

    def restored(self) -> Envelope:
        """Return what was diverted as it was before, with its id and attempt count alone.

        Beside them it keeps which broker it was going to, where that is another, for who sends
        it. An envelope whose headers do not say where it was going comes back as it is. Never
        raises: what cannot be read (`fault`) is as if it were not there.
        """
        marks = dict(self.marks)
        destination = ours.read(marks, ours.DESTINATION, None)
        if destination is None:
            return self
        kept = (ours.MESSAGE_ID, ours.ATTEMPT, ours.BROKER)
        routing_key = ours.read(marks, ours.ROUTING_KEY, None)
        kind = "kafka" if routing_key is None else "amqp"
        return replace(
            self,
            destination=destination,
            routing_key=routing_key,
            kind=kind,
            native=ours.read(marks, ours.NATIVE, self.native if kind == self.kind else b""),
            key=ours.read(marks, ours.KEY, self.key),
            body=None if ours.TOMBSTONE in marks else self.body,
            timestamp_ms=ours.read(marks, ours.TIMESTAMP, self.timestamp_ms),
            partition=ours.read(marks, ours.PARTITION, None),
            headers=ours.read(marks, ours.HEADERS, self.headers),
            producer=ours.read(marks, ours.PRODUCER, self.producer),
            marks=tuple([pair for pair in self.marks if pair[0] in kept and ours.readable(*pair)]),
        )


def _fit_elsewhere(headers: Headers) -> bool:
    """Tell whether other brokers can hold them: each name once, and none of them long."""
    names = {name for name, _ in headers}
    return len(names) == len(headers) and all(
        0 < len(name.encode("utf-8", "replace")) <= 128 - len(ours.ESCAPE) for name in names
    )
