"""Every private part of pika that is touched here, as read in 1.4.4.

`tests/adapters/shield_rabbitmq/test_internals.py` fails when one of them changes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pika import BasicProperties, BlockingConnection, SelectConnection, frame, spec
from pika.channel import Channel
from pika.connection import Parameters
from pika.exceptions import StreamLostError
from pika.spec import Basic, Confirm


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


def confirms_are_on(channel: Channel) -> bool:
    """Tell whether confirms were asked for: then somebody is to hear of each ack."""
    return bool(channel.callbacks.pending(channel.channel_number, Basic.Ack))


def confirms_wait(channel: Channel) -> bool:
    """Tell whether the request for confirms waits behind another one, so that nothing is counted.

    Publishes do not wait, and go out before it.
    """
    return any(isinstance(method, Confirm.Select) for method, *_ in channel._blocked)


def parameters_of(connection: Any) -> Parameters:
    """Return the parameters that a connection was made with: of several, those that worked."""
    return _loop_connection(connection).params


def on_close(connection: Any, callback: Callable[[Any], None]) -> None:
    """Call back with the connection when it has closed, whoever closed it."""
    _loop_connection(connection).add_on_close_callback(lambda *_: callback(connection))


def _loop_connection(connection: Any) -> Any:
    return connection._impl if isinstance(connection, BlockingConnection) else connection


def write_in_one_piece(connection: Any) -> None:
    """Let a connection hand each message to its socket in one piece, where it hands over three.

    That, and a head that is encoded once for all messages to one place, pays for the decisions.
    What is written is the same, byte for byte. Bodies of several frames, which are large, are left
    to pika, so that they are not copied.
    """
    loop_connection = _loop_connection(connection)
    if "_send_message" in vars(loop_connection):
        return
    send_message = loop_connection._send_message

    def send_joined(number: int, method: Any, content: tuple[BasicProperties, bytes]) -> None:
        properties, body = content
        size = len(body)
        plain = type(method) is Basic.Publish and type(method.exchange) is type(method.routing_key)
        if not (plain and type(method.exchange) is str and 0 < size <= body_max(loop_connection)):
            send_message(number, method, content)
            return
        head = _publish_frame(number, method.exchange, method.routing_key, method.mandatory)
        header = frame.Header(number, size, properties).marshal()
        start = _BODY.pack(spec.FRAME_BODY, number, size)
        loop_connection.frames_sent += 2
        loop_connection._output_marshaled_frames([b"".join((head, header, start, body, _END))])

    loop_connection._send_message = send_joined


_BODY = struct.Struct(">BHL")
_END = bytes([spec.FRAME_END])


@lru_cache(maxsize=4096)
def _publish_frame(number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return bytes(frame.Method(number, method).marshal())
