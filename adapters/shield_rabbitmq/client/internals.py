"""Every private part of pika that is touched here, as read in 1.4.4.

`tests/adapters/shield_rabbitmq/client/test_internals.py` fails when one of them changes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from math import inf
from typing import Any

from pika import BasicProperties, BlockingConnection, SelectConnection, frame, spec
from pika.adapters.blocking_connection import (
    BlockingChannel,
    _ConsumerDeliveryEvt,
    _IoloopTimerContext,
)
from pika.channel import Channel
from pika.connection import Parameters
from pika.exceptions import StreamLostError
from pika.spec import Basic, Confirm

from shield_rabbitmq.client.raw_properties import ReadProperties
from shield_rabbitmq.client.refusals import FRAME_OVERHEAD, check_header


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


def confirms_are_on(channel: Channel | BlockingChannel) -> bool:
    """Tell whether confirms were asked for: then somebody is to hear of each ack."""
    if isinstance(channel, BlockingChannel):
        return bool(channel._delivery_confirmation)
    return bool(channel.callbacks.pending(channel.channel_number, Basic.Ack))


def on_blocked(connection: Any, blocked: Callable[[], None], unblocked: Callable[[], None]) -> None:
    """Call back as soon as the broker's word is read, within whatever call reads it."""
    loop_connection = _loop_connection(connection)
    loop_connection.add_on_connection_blocked_callback(lambda *_: blocked())
    loop_connection.add_on_connection_unblocked_callback(lambda *_: unblocked())


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


def keep_encoded(connection: Any) -> None:
    """Let the properties of what this connection receives know how they stood on the wire.

    pika reads some values wrongly (`shield_rabbitmq.client.raw_properties`). What it cannot read at
    all is an error as ever, which ends the connection.
    """
    _read_headers(connection, ReadProperties.decode)


def keep_unreadable(connection: Any) -> None:
    """Do the same; what pika cannot read comes without properties, but for how they stood."""

    def decode(properties: ReadProperties, encoded: bytes) -> None:
        try:
            properties.decode(encoded)
        except Exception:
            properties.__dict__ |= BasicProperties().__dict__

    _read_headers(connection, decode)


def _read_headers(connection: Any, decode: Callable[[ReadProperties, bytes], object]) -> None:
    loop_connection = _loop_connection(connection)
    if "_read_frame" in vars(loop_connection):
        return

    def read_frame() -> Any:
        buffer = loop_connection._frame_buffer
        if buffer[:1] != _HEADER or len(buffer) < _BODY.size:
            return frame.decode_frame(buffer)
        _, number, size = _BODY.unpack_from(buffer)
        end = _BODY.size + size
        if buffer[end : end + 1] != _END:  # not all of it is there yet, or it is none
            return frame.decode_frame(buffer)
        properties = ReadProperties()
        decode(properties, buffer[_BODY.size + _CONTENT.size : end])
        _class, _weight, body_size = _CONTENT.unpack_from(buffer, _BODY.size)
        return end + 1, frame.Header(number, body_size, properties)

    loop_connection._read_frame = read_frame


_HEADER = bytes([spec.FRAME_HEADER])
_CONTENT = struct.Struct(">HHQ")


def can_be_sent(exchange: Any, routing_key: Any, body: Any, properties: Any) -> bool:
    """Tell whether pika can write such a message; where not, its `basic_publish` raises."""
    method = Basic.Publish(exchange=exchange, routing_key=routing_key)
    try:
        frame.Method(1, method).marshal()
        frame.Header(1, len(body), properties or BasicProperties()).marshal()
        frame.Body(1, body.encode() if isinstance(body, str) else body).marshal()
    except Exception:
        return False
    return True


# --- consuming ------------------------------------------------------------------------------------


def channel_beneath(channel: BlockingChannel) -> Channel:
    """Return the channel beneath a blocking one: what it sends is written, and not waited for."""
    return channel._impl


def call_later(connection: Any, delay_s: float, callback: Callable[[], None]) -> None:
    """Call back after so long, where this connection calls its users' callbacks."""
    if isinstance(connection, BlockingConnection):
        connection.call_later(delay_s, callback)
    else:
        connection._adapter_call_later(delay_s, callback)


def call_from_any_thread(connection: Any, callback: Callable[[], None]) -> None:
    """Call back on the connection's own thread, as soon as it reads or writes; not once closed.

    A blocking connection does so also inside its other calls, unlike what its public method asks
    for: so the callback must not run users' code.
    """
    if isinstance(connection, BlockingConnection):
        with connection._cleanup_mutex:
            _call_on_loop(connection._impl, callback)
    else:
        _call_on_loop(connection, callback)


def _call_on_loop(connection: Any, callback: Callable[[], None]) -> None:
    if not connection.is_closed:
        with suppress(Exception):  # its loop was closed by another thread at this moment
            connection._adapter_add_callback_threadsafe(callback)


def flush(channel: BlockingChannel) -> None:
    """Write what is to be written."""
    channel._flush_output()


def process_events(channel: BlockingChannel, within_s: float | None) -> None:
    """Serve the connection until something has happened, or the time is over.

    Raises:
        ChannelClosedByBroker: as pika's own `consume` does.
    """
    channel._process_data_events(time_limit=within_s)


def serve(channel: BlockingChannel) -> None:
    """Read and write what there is without calling users' callbacks, as `basic_get` does."""
    wait_until(channel, lambda: False, 0)


def wait_until(channel: BlockingChannel, is_so: Callable[[], bool], within_s: float) -> None:
    """Read and write until that is so, or the time is over; users' callbacks are not called."""
    with _IoloopTimerContext(within_s, channel.connection._impl) as timer:
        channel._flush_output(timer.is_ready, is_so)


def undispatched(channel: BlockingChannel, consumer_tag: str, most: int) -> list[Any]:
    """Return what pika has read for a consumer's callback and not handed over: events.

    Each has `method`, `properties` and `body`. Looks at the first `most` of the channel alone.
    """
    return [
        event
        for event in islice(channel._pending_events, most)
        if type(event) is _ConsumerDeliveryEvt and event.method.consumer_tag == consumer_tag
    ]


def first_undispatched(channel: Any) -> float:
    """Return the lowest delivery tag that pika has read and not handed over; infinity for none."""
    if not isinstance(channel, BlockingChannel):
        return inf
    generator = channel._queue_consumer_generator
    queues = [channel._pending_events, () if generator is None else generator.pending_events]
    return min((_first_tag(events) for events in queues), default=inf)


def _first_tag(events: Iterable[Any]) -> float:
    methods = (event.method for event in events)
    return next((each.delivery_tag for each in methods if isinstance(each, Basic.Deliver)), inf)


def say_empty(channel: Channel) -> None:
    """Tell who listens for it that a queue had no message, as the broker does."""
    number = channel.channel_number
    answer = frame.Method(number, Basic.GetEmpty())
    channel.callbacks.process(number, Basic.GetEmpty, channel, answer)


def _loop_connection(connection: Any) -> Any:
    return connection._impl if isinstance(connection, BlockingConnection) else connection


def write_in_one_piece(connection: Any) -> None:
    """Let a connection hand each message to its socket in one piece, where it hands over three.

    That, and a head that is encoded once for all messages to one place, pays for the decisions.
    What is written is the same, byte for byte; a header that would close the connection is not.
    Bodies of several frames, which are large, are left
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
        if not plain or type(method.exchange) is not str:
            send_message(number, method, content)
            return
        head = _publish_frame(number, method.exchange, method.routing_key, method.mandatory)
        header = frame.Header(number, size, properties).marshal()
        most = body_max(loop_connection)
        if len(header) > most:
            place = f"{method.exchange}/{method.routing_key}".removeprefix("/")
            check_header(place, len(header) - FRAME_OVERHEAD, most)
        if not 0 < size <= most:
            send_message(number, method, content)
            return
        start = _BODY.pack(spec.FRAME_BODY, number, size)
        loop_connection.frames_sent += 2
        loop_connection._output_marshaled_frames([b"".join((head, header, start, body, _END))])

    loop_connection._send_message = send_joined


def write_acks_readily(connection: Any) -> None:
    """Let a connection encode acknowledgements by one format instead of field by field.

    That pays for the decision about each delivery. What is written is the same, byte for byte.
    """
    loop_connection = _loop_connection(connection)
    if "_send_method" in vars(loop_connection):
        return
    send_method = loop_connection._send_method

    def send_readily(number: int, method: Any, content: Any = None) -> None:
        if type(method) is not Basic.Ack or loop_connection.is_closed:
            send_method(number, method, content)
            return
        tag, many = method.delivery_tag, 1 if method.multiple else 0
        ack = _ACK.pack(spec.FRAME_METHOD, number, 13, *_ACK_INDEX, tag, many, spec.FRAME_END)
        loop_connection._output_marshaled_frames([ack])

    loop_connection._send_method = send_readily


_ACK = struct.Struct(">BHLHHQBB")
_ACK_INDEX = divmod(Basic.Ack.INDEX, 1 << 16)
_BODY = struct.Struct(">BHL")
_END = bytes([spec.FRAME_END])


@lru_cache(maxsize=4096)
def _publish_frame(number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return bytes(frame.Method(number, method).marshal())
