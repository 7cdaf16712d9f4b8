"""How one message stands in a file: as a line of JSON, or as bytes behind their length."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, BinaryIO

from shield import Envelope, ShieldError

VERSION = 1
LONGEST = 2**30
"""Bytes that one message may take up in a file; what says it has more is none."""
LARGEST_NUMBER = 2**80
"""Beyond any timestamp that a client takes."""
PIECE = 2**16
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What comes of reading what was never written by Shield."""
_FIRST_KEYS = b'{"v":%d,"destination":"' % VERSION


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands between two offsets: a message, or, without an envelope, what is none."""

    begins: int
    ends: int
    envelope: Envelope | None


class Format(ABC):
    """Writes messages one behind another, and finds its way past what a crash has torn."""

    torn_by: bytes
    """What a writer puts behind a torn end, so that what follows can be read."""

    @abstractmethod
    def encoded(self, envelope: Envelope) -> bytes:
        """Return what is appended for a message."""

    @abstractmethod
    def read(self, file: BinaryIO, at: int) -> Iterator[Frame]:
        """Yield what stands in a file from that offset on; it grows no more.

        Raises:
            ShieldError: a message was written by a later version.
        """

    @abstractmethod
    def recognises(self, file: BinaryIO) -> bool:
        """Tell by its beginning whether a file that is not empty holds messages of Shield's."""

    @abstractmethod
    def count(self, file: BinaryIO, at: int) -> int:
        """Return how many messages about stand behind that offset, without reading them."""


class JsonLines(Format):
    """One JSON object a line; payloads as text where they are UTF-8, else base64."""

    torn_by = b"\n"

    def encoded(self, envelope: Envelope) -> bytes:
        """Return a line."""
        line = _json(document_of(envelope)) + b"\n"
        _check_length(len(line))
        return line

    def read(self, file: BinaryIO, at: int) -> Iterator[Frame]:
        """Yield a frame a line."""
        file.seek(at)
        while True:
            line, size = _line(file)
            if not size:
                return
            begins, at = at, at + size
            yield Frame(begins, at, _from_line(line))

    def recognises(self, file: BinaryIO) -> bool:
        """Look whether the first line is a message's, or was to be one when it was torn."""
        if file.read(len(_FIRST_KEYS)) == _FIRST_KEYS:
            return True
        file.seek(0)
        line, _ = _line(file)
        begun = line.strip()
        torn = len(begun) >= len(b'{"v":') and _FIRST_KEYS.startswith(begun)
        return torn or _from_line(line) is not None

    def count(self, file: BinaryIO, at: int) -> int:
        """Return the number of line ends."""
        file.seek(at)
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))


class LengthPrefixed(Format):
    """A mark, lengths of head and body, a checksum of both, the head as JSON, the bare body."""

    torn_by = b""
    _MARK = b"\x89SHD"
    _PREFIX = struct.Struct(">4sBxxxLLL")

    def encoded(self, envelope: Envelope) -> bytes:
        """Return prefix, head and body."""
        body = envelope.body or b""
        head = _json({**_fields(envelope), "tombstone": envelope.body is None})
        checksum = zlib.crc32(body, zlib.crc32(head))
        _check_length(len(head) + len(body))
        prefix = self._PREFIX.pack(self._MARK, VERSION, len(head), len(body), checksum)
        return prefix + head + body

    def read(self, file: BinaryIO, at: int) -> Iterator[Frame]:
        """Yield frames; what is torn ends where the next mark stands."""
        size = file.seek(0, 2)
        while True:
            frame = self._frame(file, at, size)
            if frame is None:
                ends = self._next_mark(file, at + 1)
                if ends == at:
                    return
                frame = Frame(at, ends, None)
            yield frame
            at = frame.ends

    def recognises(self, file: BinaryIO) -> bool:
        """Look whether there is a mark."""
        return file.read(len(self._MARK)) == self._MARK

    def count(self, file: BinaryIO, at: int) -> int:
        """Hop from prefix to prefix."""
        number = 0
        while True:
            file.seek(at)
            found = self._prefix(file.read(self._PREFIX.size))
            if found is None:
                return number
            number += 1
            at += self._PREFIX.size + found[0] + found[1]

    def _prefix(self, data: bytes) -> tuple[int, int, int] | None:
        if len(data) < self._PREFIX.size or not data.startswith(self._MARK):
            return None
        _, version, head, body, checksum = self._PREFIX.unpack(data)
        _check_version(version)
        return head, body, checksum

    def _frame(self, file: BinaryIO, at: int, size: int) -> Frame | None:
        """Return what stands there; a frame that says it is longer than the file is torn."""
        file.seek(at)
        found = self._prefix(file.read(self._PREFIX.size))
        if found is None:
            return None
        head_size, body_size, checksum = found
        if at + self._PREFIX.size + head_size + body_size > size or head_size + body_size > LONGEST:
            return None
        data = file.read(head_size + body_size)
        if len(data) < head_size + body_size or zlib.crc32(data) != checksum:
            return None
        ends = at + self._PREFIX.size + len(data)
        try:
            fields = json.loads(data[:head_size])
            body = None if fields.pop("tombstone") else data[head_size:]
            return Frame(at, ends, _envelope(fields, body))
        except UNREADABLE:
            return Frame(at, ends, None)

    def _next_mark(self, file: BinaryIO, at: int) -> int:
        """Return where the next mark stands; the end of the file where none does."""
        file.seek(at)
        behind = b""
        while piece := file.read(1 << 20):
            found = (behind + piece).find(self._MARK)
            if found >= 0:
                return at - len(behind) + found
            at += len(piece)
            behind = piece[-(len(self._MARK) - 1) :]
        return file.seek(0, 2)


FORMATS: dict[str, Format] = {"jsonl": JsonLines(), "lp": LengthPrefixed()}


# --- fields -------------------------------------------------------------------------------------


def document_of(envelope: Envelope) -> dict[str, Any]:
    """Return a whole message, ready for JSON: what a line holds; other keys may stand beside."""
    return {**_fields(envelope), "body": _readable(envelope.body)}


def _fields(envelope: Envelope) -> dict[str, Any]:
    """Return all of a message but its body, without what is as it is by default."""
    fields = {
        "v": VERSION,
        "destination": envelope.destination,
        "kind": envelope.kind,
        "key": _readable(envelope.key),
        "headers": [[name, _readable(value)] for name, value in envelope.headers],
        "routing_key": envelope.routing_key,
        "timestamp_ms": _bounded(envelope.timestamp_ms),
        "partition": _bounded(envelope.partition),
        "native": _readable(envelope.native),
        "mandatory": envelope.mandatory,
        "producer": envelope.producer,
        "marks": [list(pair) for pair in envelope.marks],
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _from_line(line: bytes) -> Envelope | None:
    """Return the message that a line holds; None where it holds none."""
    try:
        fields = json.loads(line)
        _check_version(fields["v"])
        return _envelope(fields, _bytes(fields.pop("body")))
    except UNREADABLE:
        return None


def _line(file: BinaryIO) -> tuple[bytes, int]:
    """Return a line and its size; of one that is no message's, or longer than any, a part."""
    line = file.readline(PIECE)
    if line.startswith(b"{") and len(line) == PIECE and not line.endswith(b"\n"):
        line += file.readline(LONGEST - PIECE)
    size, piece = len(line), line
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(PIECE)
        size += len(piece)
    return (line if size == len(line) else b""), size


def _envelope(fields: dict[str, Any], body: bytes | None) -> Envelope:
    """Return the message of these fields.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: they are none of a message.
    """
    return Envelope(
        destination=_typed(fields["destination"], str),
        body=body,
        kind=_typed(fields["kind"], str),
        key=_bytes(fields.get("key")),
        headers=tuple(
            (_typed(name, str), _bytes(value)) for name, value in fields.get("headers", ())
        ),
        routing_key=_typed(fields.get("routing_key"), str, NoneType),
        timestamp_ms=_bounded(_typed(fields.get("timestamp_ms"), int, NoneType)),
        partition=_bounded(_typed(fields.get("partition"), int, NoneType)),
        native=_bytes(fields.get("native")) or b"",
        mandatory=_typed(fields["mandatory"], bool),
        producer=_typed(fields.get("producer", ""), str),
        marks=tuple(
            (_typed(name, str), _typed(value, str)) for name, value in fields.get("marks", ())
        ),
    )


def _typed(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"found {type(value).__name__}")
    return value


def _bounded(number: int | None) -> int | None:
    if number is not None and abs(number) > LARGEST_NUMBER:
        raise ValueError("a number is larger than any that is written")
    return number


def _check_length(size: int) -> None:
    if size > LONGEST:
        raise ValueError(f"a message of {size:,} bytes is longer than one in a file may be")


def _check_version(version: int) -> None:
    if version > VERSION:
        raise ShieldError(
            f"a message was written by a later version ({version}; this one reads {VERSION})"
        )


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _readable(data: bytes | None) -> Any:
    """Return text where the bytes are UTF-8."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    return base64.b64decode(value["base64"], validate=True)
