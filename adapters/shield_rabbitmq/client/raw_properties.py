"""AMQP's properties as they are on the wire: what pika reads wrongly goes on unchanged.

pika reads a float as its whole part, a long string that is no UTF-8 as a byte array, small numbers
as larger ones, and of two headers of one name the last; and it cannot read all that a broker may
send. A message that is carried elsewhere, or back, is not to become what pika made of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from pika import BasicProperties, data

HEADERS, DELIVERY_MODE, PRIORITY = 1 << 13, 1 << 12, 1 << 11
REPLY_TO, EXPIRATION, TIMESTAMP, USER_ID = 1 << 9, 1 << 8, 1 << 6, 1 << 4
_FLAGS = tuple(1 << bit for bit in range(15, 1, -1))
"""In the order in which the fields stand on the wire."""
_SIZES = {DELIVERY_MODE: 1, PRIORITY: 1, TIMESTAMP: 8}
"""Bytes of the fields that are no short strings."""
_FIXED = {b"t": 1, b"b": 1, b"B": 1, b"U": 2, b"u": 2, b"s": 2, b"I": 4, b"i": 4, b"f": 4}
_FIXED |= {b"L": 8, b"l": 8, b"d": 8, b"T": 8, b"D": 5, b"V": 0}
_LONG = frozenset({b"S", b"x", b"A", b"F"})
LONGEST_NAME = 255
"""Bytes of a header's name on the wire."""


@dataclass(slots=True)
class Encoded:
    """Properties whose values are bytes as they are on the wire: each header with its type.

    Args:
        fields: by flag, all but the headers.
        headers: name and value, in order; a name may be there twice. None for none at all.
    """

    fields: dict[int, bytes] = field(default_factory=dict)
    headers: list[tuple[bytes, bytes]] | None = None

    INDEX = BasicProperties.INDEX
    """With `encode`, all that pika's header frame wants of properties."""

    @classmethod
    def of(cls, properties: BasicProperties | None) -> Self:
        """Return properties as pika has read them from the wire, or would write them."""
        if properties is None:
            return cls()
        if isinstance(properties, ReadProperties):
            return cls.parse(properties.raw)
        return cls.parse(b"".join(properties.encode()))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read what stands on the wire.

        Raises:
            ValueError: that is none.
        """
        try:
            return cls._parse(raw)
        except (struct.error, IndexError, KeyError) as error:
            raise ValueError(f"no properties of AMQP: {error!r}") from None

    @classmethod
    def _parse(cls, raw: bytes) -> Self:
        result = cls()
        (flags,) = struct.unpack_from(">H", raw)
        offset = 2
        for flag in _FLAGS:
            if not flags & flag:
                continue
            end = offset + _size(flag, raw, offset)
            if end > len(raw):
                raise IndexError(end)
            if flag == HEADERS:
                result.headers = list(_pairs(raw, offset + 4, end))
            else:
                result.fields[flag] = raw[offset:end]
            offset = end
        return result

    def copy(self) -> Self:
        """Return one that may be changed."""
        headers = None if self.headers is None else list(self.headers)
        return type(self)(dict(self.fields), headers)

    def encode(self) -> list[bytes]:
        """Return what goes on the wire."""
        flags = 0
        pieces: list[bytes] = []
        for flag in _FLAGS:
            if flag == HEADERS and self.headers is not None:
                table = b"".join(_pair(name, value) for name, value in self.headers)
                pieces += (struct.pack(">I", len(table)), table)
            elif flag in self.fields:
                pieces.append(self.fields[flag])
            else:
                continue
            flags |= flag
        return [struct.pack(">H", flags), *pieces]

    # --- fields and headers -------------------------------------------------------------------

    def read(self) -> BasicProperties:
        """Return what pika makes of it; of headers that it cannot read, nothing."""
        result = BasicProperties()
        try:
            return result.decode(b"".join(self.encode()))
        except Exception:
            return BasicProperties().decode(b"".join(type(self)(self.fields).encode()))

    @property
    def expiration(self) -> str | None:
        """Milliseconds to live, as text."""
        return self.text(EXPIRATION)

    @property
    def user_id(self) -> str | None:
        """Who publishes it."""
        return self.text(USER_ID)

    @property
    def reply_to(self) -> str | None:
        """Where its answer goes."""
        return self.text(REPLY_TO)

    @property
    def delivery_mode(self) -> int | None:
        """2 where it is persistent."""
        raw = self.fields.get(DELIVERY_MODE)
        return None if raw is None else raw[0]

    def text(self, flag: int) -> str | None:
        """Return a field that is a short string; None where it is not there."""
        raw = self.fields.get(flag)
        return None if raw is None else raw[1:].decode("utf-8", "backslashreplace")

    @property
    def timestamp(self) -> int | None:
        """Seconds since 1970, where the message says when it was made."""
        raw = self.fields.get(TIMESTAMP)
        return None if raw is None else int.from_bytes(raw, "big")

    def pop_text(self, name: str) -> str | None:
        """Take a header of ours off; None where there is none, or it is no text."""
        for place, (found, value) in enumerate(self.headers or ()):
            if found == name.encode() and value[:1] == b"S":
                assert self.headers is not None
                del self.headers[place]
                return value[5:].decode("utf-8", "backslashreplace")
        return None

    def take_off(self, name: str) -> None:
        """Take all headers of that name off, whatever they say."""
        if self.headers is not None:
            self.headers = [pair for pair in self.headers if pair[0] != name.encode()]

    def add_texts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Put headers behind those that are there."""
        more = [(name.encode(), long_string(text.encode())) for name, text in pairs]
        self.headers = [*(self.headers or ()), *more] or self.headers

    def add_values(self, pairs: Iterable[tuple[str, bytes | None]]) -> None:
        """Put headers behind those that are there: as text where they are, else as byte arrays."""
        more = [(name.encode(), _value(value)) for name, value in pairs]
        self.headers = [*(self.headers or ()), *more] or self.headers


class ReadProperties(BasicProperties):  # type: ignore[misc] # pika is untyped
    """pika's properties, which know what they were read from. Nothing of it is to be seen."""

    __slots__ = ("raw",)

    def decode(self, encoded: bytes, offset: int = 0) -> Self:
        """Read what a header frame says of properties."""
        self.raw = encoded[offset:]
        super().decode(encoded, offset)
        return self


def short_string(text: str) -> bytes:
    """Return a field of properties.

    Raises:
        ValueError: it is too long.
    """
    encoded = text.encode()
    if len(encoded) > LONGEST_NAME:
        raise ValueError(f"{text[:40]}... has {len(encoded)} bytes; allowed are {LONGEST_NAME}")
    return bytes([len(encoded)]) + encoded


def long_string(encoded: bytes) -> bytes:
    """Return a header's value."""
    return b"S" + struct.pack(">I", len(encoded)) + encoded


def _value(value: bytes | None) -> bytes:
    if value is None:
        return b"V"
    try:
        value.decode()
    except UnicodeDecodeError:
        return b"x" + struct.pack(">I", len(value)) + value
    return long_string(value)


def value_of(raw: bytes) -> Any:
    """Return what a header's value says: floats with what is behind the point.

    In tables and arrays as pika reads it; bytes of the wire where it cannot.
    """
    kind = raw[:1]
    if kind in (b"f", b"d"):
        return struct.unpack(f">{kind.decode()}", raw[1:])[0]
    try:
        return data.decode_value(raw, 0)[0]
    except Exception:  # a time beyond all calendars, a table of such
        return raw


def _size(flag: int, raw: bytes, offset: int) -> int:
    if flag == HEADERS:
        (length,) = struct.unpack_from(">I", raw, offset)
        return 4 + int(length)
    return _SIZES[flag] if flag in _SIZES else 1 + raw[offset]


def _pairs(raw: bytes, offset: int, end: int) -> Iterable[tuple[bytes, bytes]]:
    while offset < end:
        begins = offset + 1 + raw[offset]
        ends = begins + 1 + _length(raw, begins)
        if ends > end:
            raise IndexError(ends)
        yield raw[offset + 1 : begins], raw[begins:ends]
        offset = ends


def _length(raw: bytes, begins: int) -> int:
    """Return how many bytes a value has behind its type."""
    kind = raw[begins : begins + 1]
    if kind in _LONG:
        (length,) = struct.unpack_from(">I", raw, begins + 1)
        return 4 + int(length)
    return _FIXED[kind]


def _pair(name: bytes, value: bytes) -> bytes:
    if len(name) > LONGEST_NAME:
        raise ValueError(f"header {name[:40]!r}... has {len(name)} bytes; allowed are 255")
    return bytes([len(name)]) + name + value
