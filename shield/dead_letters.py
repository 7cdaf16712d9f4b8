"""Messages that others set aside: where they were going stands in headers of other names.

RabbitMQ's dead letters, and those of Spring Kafka, Kafka Connect, Kafka Streams (KIP-1034) and
share groups (KIP-1191); or a header that the operator names. Like ours these are a stranger's
word: they choose a destination on the broker that is read, among those that the rules cover. Each
is read with bounds; what cannot be read says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from shield.envelope import Envelope
from shield.headers import DESTINATION, ROUTING_KEY

EXCHANGE, DEATH_KEY = "x-first-death-exchange", "x-first-death-routing-key"
"""RabbitMQ's own, and what its source adds from `x-death`, where the routing key stands."""
BROKERS_OWN = frozenset({"x-death", "x-delivery-count", DEATH_KEY}) | {
    f"x-{which}-death-{what}"
    for which in ("first", "last")
    for what in ("exchange", "queue", "reason")
}
PARTITION, TIMESTAMP = "shield-original-partition", "shield-original-timestamp"
LONGEST_DESTINATION = 1024
MOST_PARTITIONS = 2**31
LAST_MS = 2**63 - 1
LONGEST_NUMBER = 19
"""Digits of what is written with digits."""
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NUMBER = re.compile(r"[0-9]+")

Fields = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class OriginHeaders:
    """How one kind of dead letter says where it was going: by which headers.

    Args:
        prefix: what its headers begin with; they are gone once it is back.
        binary: whether its numbers are big-endian bytes; else they are digits.
    """

    prefix: str
    binary: bool = False

    def origin(self, fields: Fields) -> dict[str, str] | None:
        """Return where it was going, as headers of ours; None where it is none of this kind."""
        topic = topic_in(fields.get(f"{self.prefix}topic"))
        if topic is None:
            return None
        marks = {DESTINATION: topic}
        partition = self._number(fields.get(f"{self.prefix}partition"), 4, MOST_PARTITIONS - 1)
        time_ms = self._number(fields.get(f"{self.prefix}timestamp"), 8, LAST_MS)
        if partition is not None:
            marks[PARTITION] = str(partition)
        if time_ms is not None:
            marks[TIMESTAMP] = str(time_ms)
        return marks

    def _number(self, data: bytes | None, size: int, most: int) -> int | None:
        if data is None:
            return None
        if self.binary:
            number = int.from_bytes(data, "big", signed=True) if len(data) == size else -1
        else:
            text = text_in(data, LONGEST_NUMBER) or ""
            number = int(text) if _NUMBER.fullmatch(text) else -1
        return number if 0 <= number <= most else None


FORMS = (
    OriginHeaders("kafka_dlt-original-", binary=True),
    OriginHeaders("kafka_original-", binary=True),
    OriginHeaders("__connect.errors."),
    OriginHeaders("__streams.errors."),
    OriginHeaders("__dlq.errors."),
)
"""Spring Kafka's dead letters, and those of its retry topics; Connect; Streams; share groups."""
PREFIXES = ("kafka_dlt-", "kafka_original-", *(form.prefix for form in FORMS[2:]))


def known(envelope: Envelope, origin_header: str | None = None) -> Envelope:
    """Return a message with headers of ours that say where it was going, where others say it.

    What Shield set aside itself, and what nobody says anything of, is returned as it is.
    """
    if not envelope.headers or any(name == DESTINATION for name, _ in envelope.marks):
        return envelope
    fields = _first_of_each(envelope)
    marks = _named(envelope, fields, origin_header) if origin_header else None
    marks = marks or _ORIGINS.get(envelope.kind, _nowhere)(fields)
    if marks is None:
        return envelope
    kept = tuple(
        (name, value)
        for name, value in envelope.headers
        if not (name.startswith(PREFIXES) or name in BROKERS_OWN)
    )
    return replace(envelope.marked({**dict(envelope.marks), **marks}), headers=kept)


def _first_of_each(envelope: Envelope) -> dict[str, bytes]:
    """Return the first value under each name: where it died more than once, the first time."""
    fields: dict[str, bytes] = {}
    for name, value in envelope.headers:
        if value is not None:
            fields.setdefault(name, value)
    return fields


def _of_kafka(fields: Fields) -> dict[str, str] | None:
    return next((origin for form in FORMS if (origin := form.origin(fields))), None)


def _of_rabbitmq(fields: Fields) -> dict[str, str] | None:
    exchange = text_in(fields.get(EXCHANGE, b""), LONGEST_DESTINATION)
    key = text_in(fields.get(DEATH_KEY), LONGEST_DESTINATION)
    if exchange is None or key is None:
        return None
    return {DESTINATION: f"{exchange}/{key}" if exchange else key, ROUTING_KEY: key}


def _nowhere(_fields: Fields) -> dict[str, str] | None:
    return None


_ORIGINS: dict[str, Callable[[Fields], dict[str, str] | None]] = {
    "kafka": _of_kafka,
    "amqp": _of_rabbitmq,
}


def _named(envelope: Envelope, fields: Fields, name: str) -> dict[str, str] | None:
    """Return what a header says that the operator names: a topic; `EXCHANGE/KEY`, or a queue."""
    if envelope.kind == "kafka":
        topic = topic_in(fields.get(name))
        return None if topic is None else {DESTINATION: topic}
    text = text_in(fields.get(name), LONGEST_DESTINATION)
    if not text:
        return None
    exchange, slash, key = text.partition("/")
    return {DESTINATION: text, ROUTING_KEY: key if slash and exchange else exchange or key}


def topic_in(data: bytes | None) -> str | None:
    """Return the name of a topic; None where it is none."""
    text = text_in(data, 249)
    return text if text and _TOPIC.fullmatch(text) and text not in (".", "..") else None


def text_in(data: bytes | None, longest: int) -> str | None:
    """Return a text of so many bytes at the most; None where it is none."""
    if data is None or len(data) > longest:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
