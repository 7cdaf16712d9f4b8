"""Every private part of pika that is touched here, as read in 1.4.4.

`tests/adapters/shield_rabbitmq/test_internals.py` fails when one of them changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import BlockingConnection, SelectConnection
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
