"""One `send`, serialized once and before it is decided on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from shield_kafka.client.serialization import Serialized

Header = tuple[str, bytes | None]


class Record(NamedTuple):
    """The arguments of a send; key and value may be `Serialized`."""

    topic: str
    value: Any
    key: Any
    headers: list[Header] | None
    partition: int | None
    timestamp_ms: int | None

    def with_headers(self, added: Iterable[tuple[str, str | bytes]]) -> Record:
        """Return it with the headers that plugins have added; the caller's list stays as it is."""
        more = [(name, text.encode() if isinstance(text, str) else text) for name, text in added]
        return self._replace(headers=[*(self.headers or ()), *more]) if more else self

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of key, value and headers, as kafka-python's metadata gives them: -1 for none."""
        headers = sum(len(key.encode()) + len(value or b"") for key, value in self.headers or ())
        return size_of(data_of(self.key)), size_of(data_of(self.value)), headers or -1

    def copied(self) -> Record:
        """Return it with nothing in it that its caller may change later."""
        return self._replace(
            value=_copied(self.value),
            key=_copied(self.key),
            headers=None if self.headers is None else list(self.headers),
        )


def _copied(data: Any) -> Any:
    if type(data) is Serialized:
        return Serialized(data.original, _copied(data.data))
    return bytes(data) if type(data) in (bytearray, memoryview) else data


def data_of(data: Any) -> Any:
    """Return the bytes of a key or value."""
    return data.data if type(data) is Serialized else data


def size_of(data: Any) -> int:
    """Return the length in bytes; -1 for none."""
    if data is None:
        return -1
    return data.nbytes if isinstance(data, memoryview) else len(data)


def is_sound(record: Record) -> bool:
    """Tell whether kafka-python would take these arguments; else it says best what is wrong."""
    if not isinstance(record.topic, str) or (record.value is None and record.key is None):
        return False
    headers = record.headers
    return headers is None or (isinstance(headers, list) and all(map(_is_header, headers)))


def _is_header(header: Any) -> bool:
    return (
        isinstance(header, tuple)
        and len(header) == 2
        and isinstance(header[0], str)
        and isinstance(header[1], bytes)
    )


def is_bytes(data: Any) -> bool:
    """Tell whether kafka-python takes this as serialized."""
    return data is None or type(data) in (bytes, bytearray, memoryview)
