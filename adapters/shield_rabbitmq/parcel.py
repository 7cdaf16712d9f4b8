"""One message as it goes on the wire, checked and encoded on its caller's thread.

A parcel holds all but the body's frames: how those are cut depends on the connection. From here
on nobody reads the caller's properties again, so that they may be changed and used anew.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from pika import BasicProperties, frame, spec

CHANNEL = 1
"""The channel that a publisher's messages go through."""

_BODY = struct.Struct(">BHL")
_NOTHING = BasicProperties()
_FRAME_END = bytes([spec.FRAME_END])


class Parcel:
    """Exchange, routing key, body and encoded head of one message."""

    __slots__ = ("body", "exchange", "head", "mandatory", "routing_key")

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: BasicProperties | None,
        mandatory: bool,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.mandatory = mandatory
        self.head = _method(exchange, routing_key, mandatory) + _header(len(body), properties)

    @property
    def destination(self) -> str:
        """What rules match: `exchange/routing-key`, or the queue's name alone."""
        return f"{self.exchange}/{self.routing_key}" if self.exchange else self.routing_key

    def has(self, properties: BasicProperties) -> bool:
        """Tell whether these are the properties that it was made with."""
        return self.head.endswith(_header(len(self.body), properties))

    def frames(self, body_max: int) -> list[bytes]:
        """Return all of it as it is written, with body frames of so many bytes at the most."""
        parts = [self.head]
        body = self.body
        for start in range(0, len(body), body_max):
            piece = body if len(body) <= body_max else body[start : start + body_max]
            parts += (_BODY.pack(spec.FRAME_BODY, CHANNEL, len(piece)), piece, _FRAME_END)
        return parts


def body_of(body: Any) -> bytes:
    """Return the bytes of a body: text becomes UTF-8.

    Raises:
        TypeError: it is neither bytes nor text.
    """
    if type(body) is bytes:
        return body
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"body: found {_described(body)}; allowed are bytes and str")


def check_address(exchange: Any, routing_key: Any) -> None:
    """Raise TypeError or ValueError where these cannot be an exchange and a routing key."""
    for name, value in (("exchange", exchange), ("routing_key", routing_key)):
        if not isinstance(value, str):
            raise TypeError(f"{name}: found {_described(value)}; allowed is str")
        if len(value) > 63 and len(value.encode()) > 255:  # 63 characters are never over 252 bytes
            raise ValueError(f"{name}: found {len(value.encode())} bytes; allowed are 255")


def check_properties(properties: Any) -> None:
    """Raise TypeError where it is not pika's properties, or its headers no mapping."""
    if properties is None:
        return
    if not isinstance(properties, BasicProperties):
        raise TypeError(
            f"properties: found {_described(properties)}; allowed is pika.BasicProperties"
        )
    if properties.headers is not None and not isinstance(properties.headers, dict):
        raise TypeError(
            f"properties.headers: found {_described(properties.headers)}; allowed: dict"
        )


@lru_cache(maxsize=4096)
def _method(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return bytes(frame.Method(CHANNEL, method).marshal())


def _header(size: int, properties: BasicProperties | None) -> bytes:
    try:
        return bytes(frame.Header(CHANNEL, size, properties or _NOTHING).marshal())
    except Exception as error:
        raise TypeError(f"properties: {properties!r} cannot be encoded: {error!r}") from error


def _described(value: object) -> str:
    return "None" if value is None else f"{value!r:.80} of type {type(value).__name__}"
