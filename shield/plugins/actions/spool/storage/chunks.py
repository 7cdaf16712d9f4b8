"""Messages as a spool stores them: a head in JSON, and the bytes.

Many messages make one row of the table, a chunk: each step of a query releases the
interpreter's lock and takes it again, which costs more, beside a client's busy I/O thread, than
all the rest of storing or reading a small message.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Any

from shield import Envelope

CHUNK_MESSAGES = 256
CHUNK_BYTES = 256 * 1024
LARGEST_NUMBER = 2**80
"""Beyond any timestamp that a client takes: AMQP has 64 bits of seconds."""

HEAD: tuple[set[Any], ...] = (
    *({str}, {str}, {str, NoneType}, {bool}, {str}),
    *({int, NoneType}, {int}, {int, NoneType}, {int, NoneType}, {int, NoneType}),
    *({list}, {list}),
)
"""Which types may stand in a head, in order."""
Label = tuple[str, str]

_json = json.JSONEncoder(separators=(",", ":")).encode
_text = json.encoder.encode_basestring_ascii
"""A string as JSON has it: in C, and without an encoder around it."""


class StoredRow:
    """One message, encoded on its caller's thread."""

    __slots__ = ("head", "label", "origin", "payload", "size")

    def __init__(self, envelope: Envelope, origin: str) -> None:
        """Encode it.

        Raises:
            TypeError, ValueError: it has something that JSON cannot hold.
        """
        key, native, body = envelope.key, envelope.native, envelope.body
        self.origin = origin
        self.label = envelope.destination, envelope.producer
        self.payload = (key or b"", native, body or b"")
        sizes = (
            f"{'null' if key is None else len(key)},"
            f"{len(native)},"
            f"{'null' if body is None else len(body)}"
        )
        headers = ",".join(
            [
                f"[{_text(name)},{'null' if value is None else _text(value.decode('latin-1'))}]"
                for name, value in envelope.headers
            ]
        )
        marks = ",".join([f"[{_text(name)},{_text(text)}]" for name, text in envelope.marks])
        rest = "null,null"
        if envelope.timestamp_ms is not None or envelope.partition is not None:
            numbers = _bounded(envelope.timestamp_ms), _bounded(envelope.partition)
            rest = ",".join(map(_json, numbers))
        self.head = f"[{_start(envelope)},{sizes},{rest},[{headers}],[{marks}]]"
        self.size = len(self.head) + envelope.size + len(native)


def _start(envelope: Envelope) -> str:
    return _start_of(
        envelope.destination,
        envelope.kind,
        envelope.routing_key,
        envelope.mandatory,
        envelope.producer,
    )


@lru_cache(maxsize=1024)
def _start_of(
    destination: str, kind: str, routing_key: str | None, mandatory: bool, producer: str
) -> str:
    """Return the part of a head that most messages have in common with others.

    Raises:
        ValueError: a name is no text that could be written beside it.
    """
    f"{destination}{producer}".encode()
    return _json((destination, kind, routing_key, mandatory, producer))[1:-1]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some messages of one broker, as a row of the table."""

    origin: str
    messages: int
    size: int
    crc: int
    heads: str
    payload: bytes

    labels: Mapping[Label, int] | None = None
    """How many messages of each destination and producer there are; None where it was read."""

    @property
    def is_sound(self) -> bool:
        """Whether it is as it was written."""
        try:
            return self.crc == _crc(self.heads, self.payload)
        except (TypeError, ValueError, AttributeError):
            return False


def chunks_of(rows: Sequence[StoredRow]) -> Iterator[Chunk]:
    """Put rows together, the oldest first; those of each broker by themselves."""
    by_origin: dict[str, list[StoredRow]] = {}
    sizes: dict[str, int] = {}
    for row in rows:
        waiting = by_origin.setdefault(row.origin, [])
        size = sizes.get(row.origin, 0)
        if waiting and (len(waiting) >= CHUNK_MESSAGES or size + row.size > CHUNK_BYTES):
            yield _chunk(waiting)
            waiting.clear()
            size = 0
        waiting.append(row)
        sizes[row.origin] = size + row.size
    for waiting in by_origin.values():
        yield _chunk(waiting)


def _chunk(rows: list[StoredRow]) -> Chunk:
    heads = f"[{','.join([row.head for row in rows])}]"
    payload = b"".join([part for row in rows for part in row.payload])
    size = len(heads) + len(payload)
    labels = Counter([row.label for row in rows])
    return Chunk(rows[0].origin, len(rows), size, _crc(heads, payload), heads, payload, labels)


def _crc(heads: str, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(heads.encode()))


def labels_in(chunk: Chunk) -> list[Label]:
    """Return destination and producer of each message, without the rest of it.

    Raises:
        ValueError: it cannot be read.
    """
    with _damage():
        labels = [(head[0], head[4]) for head in json.loads(chunk.heads)]
        if len(labels) != chunk.messages:
            raise ValueError("its messages are not as many as it says")
        if {type(text) for label in labels for text in label} - {str}:
            raise ValueError("it holds what is no message")
        return labels


def envelopes_in(chunk: Chunk) -> list[Envelope]:
    """Return the messages of a chunk, the oldest first.

    Raises:
        ValueError: it is not as it was written, or nothing that Shield writes.
    """
    with _damage():
        if not chunk.is_sound or type(chunk.origin) is not str:
            raise ValueError("it is damaged")
        return _envelopes_in(chunk)


@contextmanager
def _damage() -> Iterator[None]:
    """Have all that a chunk of anybody's making may lead to as one error."""
    try:
        yield
    except (TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no chunk of messages: {error}") from None


def _envelopes_in(chunk: Chunk) -> list[Envelope]:
    found = []
    payload, at = chunk.payload, 0
    for head in json.loads(chunk.heads):
        if not _is_head(tuple(map(type, head))):
            raise ValueError("it holds what is no message")
        (
            destination,
            kind,
            routing_key,
            mandatory,
            producer,
            key_size,
            native_size,
            body_size,
            timestamp_ms,
            partition,
            headers,
            marks,
        ) = head
        key = body = None
        native = b""
        if key_size is not None:
            key = payload[at : at + key_size]
            at += key_size
        if native_size:
            native = payload[at : at + native_size]
            at += native_size
        if body_size is not None:
            body = payload[at : at + body_size]
            at += body_size
        found.append(
            Envelope(
                destination,
                body,
                kind,
                key,
                _pairs(headers) if headers else (),
                routing_key,
                _bounded(timestamp_ms),
                _bounded(partition),
                native,
                mandatory,
                producer,
                tuple([(name + "", text + "") for name, text in marks]),
            )
        )
        if min(key_size or 0, native_size, body_size or 0) < 0 or at > len(payload):
            raise ValueError("a message is longer than it may be")
    if len(found) != chunk.messages:
        raise ValueError("its messages are not as many as it says")
    return found


@lru_cache(maxsize=64)
def _is_head(types: tuple[type, ...]) -> bool:
    return len(types) == len(HEAD) and all(map(set.__contains__, HEAD, types))


def _pairs(headers: list[tuple[str, str | None]]) -> tuple[tuple[str, bytes | None], ...]:
    return tuple(
        [(name + "", None if text is None else text.encode("latin-1")) for name, text in headers]
    )


def _bounded(number: int | None) -> int | None:
    if number is not None and abs(number) > LARGEST_NUMBER:
        raise ValueError("a number is larger than any that is written")
    return number
