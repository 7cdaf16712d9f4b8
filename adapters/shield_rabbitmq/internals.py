"""Every private part of pika that the publisher touches, as read in 1.4.4.

`tests/adapters/shield_rabbitmq/test_internals.py` fails when one of them changes.
"""

from __future__ import annotations

from typing import Any

from pika import SelectConnection
from pika.exceptions import StreamLostError


def write(connection: SelectConnection, data: bytes) -> None:
    """Write frames that are encoded already, many in one piece: one system call instead of many.

    `basic_publish` hands each of a message's three frames to the socket by itself.
    """
    connection._output_marshaled_frames([data])


def body_max(connection: SelectConnection) -> int:
    """Return how many bytes of a body go into one frame, as negotiated."""
    return int(connection._body_max_length)


def abort(connection: SelectConnection) -> None:
    """Cut a connection that does not end by itself: its peer is frozen, or the network away."""
    if not connection.is_closed:
        connection._terminate_stream(StreamLostError("the publisher was closed"))


def returned_message(method: Any, properties: Any, body: bytes) -> object:
    """Return what pika's `UnroutableError` holds."""
    from pika.adapters.blocking_connection import ReturnedMessage

    return ReturnedMessage(method, properties, body)
