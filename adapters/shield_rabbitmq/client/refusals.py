"""What RabbitMQ refuses of a message, with the channel or connection it came through.

Such a refusal tells nothing of what else was on the wire there. So what is known to be refused is
refused before it is written; what may be is written alone (`doubts_of`). What a connection finds
out meanwhile is in `shield_rabbitmq.connection.suspects`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

from pika import BasicProperties

from shield_rabbitmq.client.errors import RefusedError

PRECONDITION_FAILED, FRAME_ERROR = 406, 501
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
"""Stands for the channel that it is published through, where that consumes from it."""
FRAME_OVERHEAD = 8
"""Bytes of a frame beside what is in it."""
LARGE_BODY = 4 * 2**20
"""Bytes from which the broker's own limit may be in the way; 16 MiB is the lowest default."""
LARGE_HEAD = 3_000
"""Bytes from which a header may not fit into a frame; AMQP's smallest has 4096."""
LONGEST_EXPIRATION_MS = 10 * 365 * 86_400 * 1000
PLAIN_MODES = (2, 1, None)
"""Delivery modes that RabbitMQ knows."""
BAD_MESSAGE = frozenset({501, 502, 503, 505})
"""Codes of errors that close a connection for what was written there."""
_EXPIRATION = re.compile(r"[+-]?[0-9]+", re.ASCII)
_ROUTING = ("CC", "BCC", b"CC", b"BCC")


def reason_against(properties: BasicProperties) -> str | None:
    """Return why RabbitMQ refuses any message with these properties; None where it may not."""
    if properties.expiration is not None:
        text = _text(properties.expiration)
        if not _EXPIRATION.fullmatch(text) or int(text[:20]) < 0:
            return f"expiration: found {text!r:.60}; allowed are milliseconds, as '60000'"
    headers = properties.headers
    if isinstance(headers, dict):
        for name in _ROUTING:
            if name in headers and not isinstance(headers[name], list):
                return f"headers: {_text(name)}: found {headers[name]!r:.60}; allowed is a list"
    return None


def refuse_known(destination: str, properties: Any) -> None:
    """Refuse what RabbitMQ would close a user's own channel for.

    Raises:
        RefusedError: it says what is wrong.
    """
    if type(properties) is not BasicProperties:
        return
    if properties.expiration is None and not properties.headers:
        return
    refusal = reason_against(properties)
    if refusal is not None:
        raise RefusedError(destination, PRECONDITION_FAILED, refusal)


def belongs_to_a_channel(properties: BasicProperties | None) -> bool:
    """Tell whether it is a request whose answer comes to the channel it is published through."""
    return (
        properties is not None
        and properties.reply_to is not None
        and _text(properties.reply_to) == DIRECT_REPLY_TO
    )


def doubts_of(properties: BasicProperties, size: int, head: int) -> tuple[Hashable, ...]:
    """Return for what the broker may refuse it, which only the broker knows."""
    return tuple(_doubts(properties, size, head))


def _doubts(properties: BasicProperties, size: int, head: int) -> Iterator[Hashable]:
    if properties.user_id is not None:
        yield "user_id", _text(properties.user_id)
    if properties.delivery_mode not in PLAIN_MODES:
        yield "delivery_mode", properties.delivery_mode
    expiration = properties.expiration
    if expiration is not None and int(_text(expiration)[:20]) > LONGEST_EXPIRATION_MS:
        yield "expiration", _text(expiration)
    if size >= LARGE_BODY:
        yield "size", size
    if head >= LARGE_HEAD:
        yield "head", head


def check_header(destination: str, size: int, frame_max: int) -> None:
    """Refuse a message whose properties and headers do not fit into one frame of its connection.

    Raises:
        RefusedError: the broker would close the connection.
    """
    if size > frame_max:
        what = f"its properties and headers have {size} bytes; allowed here are {frame_max}"
        raise RefusedError(destination, FRAME_ERROR, what)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
