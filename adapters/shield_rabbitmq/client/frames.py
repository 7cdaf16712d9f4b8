"""One message as it goes on the wire, checked and encoded on its caller's thread.

`Frames` hold all but the body's frames: how those are cut depends on the connection. From here
on nobody reads the caller's properties again, so that they may be changed and used anew.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import Any, TypeAlias

from pika import BasicProperties, frame, spec

from shield_rabbitmq.client.errors import RefusedError
from shield_rabbitmq.client.raw_properties import Encoded
from shield_rabbitmq.client.refusals import (
    DIRECT_REPLY_TO,
    FRAME_OVERHEAD,
    LARGE_BODY,
    LARGE_HEAD,
    PLAIN_MODES,
    PRECONDITION_FAILED,
    belongs_to_a_channel,
    doubts_of,
    reason_against,
)

CHANNEL = 1
"""The channel that a publisher's messages go through."""

_BODY = struct.Struct(">BHL")
_NOTHING = BasicProperties()
Properties: TypeAlias = BasicProperties | Encoded | None
_FRAME_BEGIN = struct.Struct(">BHL")
_HEADER_SIZE = 12
"""Bytes of a header frame before its properties: class, weight and the body's size."""
_FRAME_END = bytes([spec.FRAME_END])


class Frames:
    """Exchange, routing key, body and encoded head of one message."""

    __slots__ = ("body", "doubts", "exchange", "head", "mandatory", "routing_key")

    doubts: tuple[Hashable, ...]
    """For what the broker may refuse it; it is written alone where that is not known to pass."""

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties,
        mandatory: bool,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.mandatory = mandatory
        header = _header(len(body), properties)
        self.head = _method(exchange, routing_key, mandatory) + header
        large = len(body) >= LARGE_BODY or len(header) >= LARGE_HEAD
        if properties is None or (
            not large
            and properties.expiration is properties.user_id is properties.reply_to is None
            and not properties.headers
            and properties.delivery_mode in PLAIN_MODES
        ):
            self.doubts = (("size", len(body)),) if large else ()
        else:
            self.doubts = self._checked(properties, len(header))

    def _checked(self, given: BasicProperties | Encoded, head: int) -> tuple[Hashable, ...]:
        """Return the doubts about these properties.

        Raises:
            RefusedError: no connection of ours may send them.
        """
        properties = given.read() if isinstance(given, Encoded) else given
        refusal = reason_against(properties)
        if refusal is None and belongs_to_a_channel(properties):
            refusal = f"reply_to: {DIRECT_REPLY_TO} is about the channel that consumes from it"
        if refusal is not None:
            raise RefusedError(self.destination, PRECONDITION_FAILED, refusal)
        return doubts_of(properties, len(self.body), head)

    @property
    def header_size(self) -> int:
        """How many bytes of properties and headers go into one frame."""
        method = _method(self.exchange, self.routing_key, self.mandatory)
        return len(self.head) - len(method) - FRAME_OVERHEAD

    @property
    def destination(self) -> str:
        """What rules match: `exchange/routing-key`, or the queue's name alone."""
        return f"{self.exchange}/{self.routing_key}" if self.exchange else self.routing_key

    @property
    def properties(self) -> Encoded:
        """Its properties as they go on the wire; nobody else holds them."""
        _, _, method_size = _FRAME_BEGIN.unpack_from(self.head)
        begins = _FRAME_BEGIN.size + method_size + 1 + _FRAME_BEGIN.size + _HEADER_SIZE
        return Encoded.parse(self.head[begins:-1])

    def has(self, properties: BasicProperties) -> bool:
        """Tell whether these are the properties that it was made with, as pika reads them.

        The broker takes BCC off.
        """
        own = BasicProperties()
        own.decode(b"".join(self.properties.encode()))
        if own.headers is not None:
            own.headers.pop("BCC", None)
        return bool(own == properties)

    def cut(self, body_max: int) -> list[bytes]:
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


def with_headers(
    properties: BasicProperties | None, added: Iterable[tuple[str, str | bytes]]
) -> BasicProperties | None:
    """Return properties with the headers that plugins have added; the caller's stay as they are."""
    more = dict(added)
    if not more:
        return properties
    result = BasicProperties() if properties is None else copy.copy(properties)
    result.headers = {**(result.headers or {}), **more}
    return result


@lru_cache(maxsize=4096)
def _method(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return bytes(frame.Method(CHANNEL, method).marshal())


def _header(size: int, properties: Properties) -> bytes:
    try:
        return bytes(frame.Header(CHANNEL, size, properties or _NOTHING).marshal())
    except Exception as error:
        raise TypeError(f"properties: {properties!r} cannot be encoded: {error!r}") from error


def _described(value: object) -> str:
    return "None" if value is None else f"{value!r:.80} of type {type(value).__name__}"
