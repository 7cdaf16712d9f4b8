"""The private parts of pika that are touched here are as they were read."""

import inspect
import struct
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pika
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pika import BasicProperties, BlockingConnection, SelectConnection, frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import ConnectionWrongStateError

from shield.testing import ManualClock
from shield_rabbitmq.channels.channel import Shielded
from shield_rabbitmq.client import internals
from shield_rabbitmq.client.raw_properties import Encoded
from shield_rabbitmq.consuming.channel import BlockingConsuming, ConsumingChannel
from tests.adapters.shield_rabbitmq.broker import Blocking, Broker
from tests.adapters.shield_rabbitmq.wire import Wire


def test_marshaled_frames_can_be_written():
    """A list of bytes, each handed to the socket."""
    signature = inspect.signature(SelectConnection._output_marshaled_frames)
    assert list(signature.parameters) == ["self", "marshaled_frames"]


def test_a_connection_knows_how_large_a_body_frame_may_be():
    """Set when the connection is tuned."""
    assert "_body_max_length" in inspect.getsource(pika.connection.Connection._on_connection_tune)


def test_a_stream_can_be_terminated():
    """With the error that its close callback gets."""
    signature = inspect.signature(SelectConnection._terminate_stream)
    assert list(signature.parameters) == ["self", "error"]


def test_a_returned_message_holds_method_properties_and_body():
    """What pika's UnroutableError lists."""
    message = pika.adapters.blocking_connection.ReturnedMessage("m", "p", b"b")
    assert (message.method, message.properties, message.body) == ("m", "p", b"b")


@pytest.mark.parametrize("kind", [BlockingChannel, Channel])
def test_a_channel_publishes_with_these_arguments(kind):
    """A shielded one takes the same, by position and by name, with the same defaults."""
    theirs = inspect.signature(kind.basic_publish).parameters
    ours = inspect.signature(Shielded.basic_publish).parameters
    assert list(theirs) == [*ours][: len(theirs)]
    assert [each.default for each in theirs.values()] == [ours[name].default for name in theirs]


@pytest.mark.parametrize("kind", [BlockingChannel, Channel])
def test_a_channels_class_can_be_changed(kind):
    """It has no slots, and a dict of its own."""
    assert "__dict__" in dir(kind)
    assert not hasattr(kind, "__slots__")


def test_a_channel_knows_whether_confirms_were_asked_for():
    """By the callbacks for acks."""
    channel = Wire().channel()
    assert not internals.confirms_are_on(channel)
    channel.confirm_delivery(print)
    assert internals.confirms_are_on(channel)


def test_a_blocking_channel_knows_it_too():
    """By a mark that it sets when the broker has agreed, and publishes by."""
    channel = BlockingChannel(Wire().channel(), MagicMock())
    assert not internals.confirms_are_on(channel)
    channel._delivery_confirmation = True
    assert internals.confirms_are_on(channel)
    source = inspect.getsource(BlockingChannel.confirm_delivery)
    assert "self._delivery_confirmation = True" in source
    assert "if self._delivery_confirmation:" in inspect.getsource(BlockingChannel.basic_publish)


def test_a_blocked_connection_says_so_at_once():
    """The connection beneath a blocking one, which keeps it back from its user's callbacks."""
    wire, said = Wire(), []
    internals.on_blocked(wire, lambda: said.append(True), lambda: said.append(False))
    wire.say(spec.Connection.Blocked("memory"))
    wire.say(spec.Connection.Unblocked())
    assert said == [True, False]
    source = inspect.getsource(BlockingConnection.add_on_connection_blocked_callback)
    assert "self._impl.add_on_connection_blocked_callback" in source


def test_a_request_for_confirms_waits_behind_another_one():
    """Among the methods that a channel holds back."""
    wire = Wire()
    channel = wire.channel()
    channel.queue_declare("q", callback=print)
    channel.confirm_delivery(lambda frame: None)
    assert internals.confirms_wait(channel)
    wire.answer(spec.Queue.DeclareOk("q", 0, 0))
    assert not internals.confirms_wait(channel)


def test_a_blocking_connection_has_a_select_connection_beneath():
    """Made by its constructor, with the parameters that worked and the callbacks for its end."""
    source = inspect.getsource(BlockingConnection.__init__)
    assert "self._impl.add_on_close_callback" in source
    assert "self.params = " in inspect.getsource(Connection.__init__)


# --- consuming ------------------------------------------------------------------------------------


def test_a_blocking_channel_has_a_channel_beneath():
    """Made by its connection; its acknowledgements are written and not waited for."""
    broker = Broker(ManualClock())
    channel = Blocking(broker).channel()
    assert internals.channel_beneath(channel) is broker.made


@pytest.mark.parametrize("method", ["_adapter_call_later", "_adapter_add_callback_threadsafe"])
def test_every_connection_has_a_loop_to_call_back_from(method):
    """All of pika's own adapters have these two methods, whatever loop they are for."""
    for kind in (SelectConnection, AsyncioConnection):
        assert getattr(kind, method) is not getattr(Connection, method)


def test_a_closed_connection_calls_nobody_back():
    """Nor one whose loop another thread closes at this moment."""
    broker = Broker(ManualClock())
    called: list[int] = []
    for connection in (broker, Blocking(broker)):
        broker.is_closed = False
        internals.call_from_any_thread(connection, lambda: called.append(1))
        broker.is_closed = True
        internals.call_from_any_thread(connection, lambda: called.append(2))
    broker.is_closed = False
    broker._adapter_add_callback_threadsafe = None
    internals.call_from_any_thread(broker, lambda: called.append(3))
    broker.run()
    assert called == [1, 1]


def test_pika_keeps_what_it_has_read_in_two_queues():
    """For callbacks and for the generator; the first delivery of each has its lowest tag."""
    broker = Broker(ManualClock())
    channel = Blocking(broker).channel()
    assert internals.first_undispatched(channel) == float("inf")
    assert internals.first_undispatched(broker.made) == float("inf")
    broker.publish(b"a", b"b", b"c")
    items = channel.consume("q")
    next(items)
    assert internals.first_undispatched(channel) == 2
    channel.basic_consume("q", print, consumer_tag="b")
    broker.consumers = {"b": False}
    broker.publish(b"d", b"e")
    broker.run()
    channel._queue_consumer_generator.pending_events.clear()
    assert internals.first_undispatched(channel) == 4


def test_who_listens_for_empty_queues_can_be_told():
    """With the frame that a broker sends, and pika forgets the callback of its `basic_get`."""
    wire = Wire()
    channel = wire.channel()
    heard: list[Any] = []
    channel.add_callback(heard.append, [spec.Basic.GetEmpty])
    channel.basic_get("q", print)
    internals.say_empty(channel)
    assert isinstance(heard[0].method, spec.Basic.GetEmpty)
    assert channel._on_getok_callback is None


@pytest.mark.parametrize("name", ["basic_consume", "basic_cancel", "basic_get", "basic_qos"])
@pytest.mark.parametrize(
    ("kind", "ours"), [(BlockingChannel, BlockingConsuming), (Channel, ConsumingChannel)]
)
def test_what_consumes_takes_the_same_arguments(kind, ours, name):
    """By position and by name, as far as we name them."""
    theirs = list(inspect.signature(getattr(kind, name)).parameters.values())
    named = [
        each
        for each in inspect.signature(getattr(ours, name)).parameters.values()
        if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    assert [each.name for each in named] == [each.name for each in theirs][: len(named)]
    assert [each.default for each in named] == [each.default for each in theirs][: len(named)]


@pytest.mark.parametrize("name", ["basic_ack", "basic_nack", "basic_reject", "consume", "cancel"])
def test_what_acknowledges_takes_the_same_arguments(name):
    """And no more."""
    theirs = inspect.signature(getattr(BlockingChannel, name)).parameters
    ours = inspect.signature(getattr(BlockingConsuming, name)).parameters
    assert [*theirs] == [*ours]
    assert [each.default for each in theirs.values()] == [each.default for each in ours.values()]


class Output:
    """A connection's way of writing, with what it wrote."""

    _body_max_length = 100
    _send_message = Connection._send_message

    def __init__(self) -> None:
        self.frames_sent = 0
        self.pieces: list[bytes] = []

    def _output_marshaled_frames(self, frames: list[bytes]) -> None:
        self.frames_sent += len(frames)
        self.pieces += frames

    _send_method = Connection._send_method
    _send_frame = Connection._send_frame
    is_closed = False

    def publish(self, number: int, method: Any, properties: Any, body: Any) -> str | None:
        """Write a message; return the name of the error that this raised."""
        try:
            self._send_message(number, method, (properties, body))
        except Exception as error:
            return type(error).__name__
        return None


names = st.one_of(st.text(max_size=100), st.binary(max_size=10), st.none())


@settings(deadline=None)
@given(
    number=st.integers(1, 65535),
    exchange=names,
    routing_key=names,
    mandatory=st.booleans(),
    body=st.binary(max_size=301),
    headers=st.one_of(st.none(), st.dictionaries(st.text(max_size=9), st.integers(-9, 9))),
)
def test_a_message_in_one_piece_is_the_same_on_the_wire(
    number, exchange, routing_key, mandatory, body, headers
):
    """Byte for byte, with the same count of frames, and the same errors."""
    theirs, ours = Output(), Output()
    internals.write_in_one_piece(ours)
    internals.write_in_one_piece(ours)
    method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    properties = BasicProperties(headers=headers, delivery_mode=2)
    assume(len(frame.Header(1, 1, properties).marshal()) <= Output._body_max_length)
    for _ in range(2):
        errors = [side.publish(number, method, properties, body) for side in (theirs, ours)]
        assert errors[0] == errors[1]
    assert b"".join(ours.pieces) == b"".join(theirs.pieces)
    assert ours.frames_sent == theirs.frames_sent
    if isinstance(exchange, str) and isinstance(routing_key, str) and 0 < len(body) <= 100:
        assert len(ours.pieces) in (0, 2)


@given(
    number=st.integers(1, 65535),
    tag=st.one_of(st.integers(0, 2**64 - 1), st.just(-1), st.just("tag"), st.none()),
    multiple=st.one_of(st.booleans(), st.none(), st.just(2)),
)
def test_an_acknowledgement_is_the_same_on_the_wire(number, tag, multiple):
    """Byte for byte, with errors of the same kind for what is none; other methods are pika's."""
    theirs, ours = Output(), Output()
    internals.write_acks_readily(ours)
    internals.write_acks_readily(ours)
    errors: list[Any] = []
    for side in (theirs, ours):
        for method in (spec.Basic.Ack(tag, multiple), spec.Basic.Nack(5, True, False)):
            try:
                side._send_method(number, method)
                errors.append(None)
            except Exception as error:
                errors.append(type(error))
    assert ours.pieces == theirs.pieces
    assert ours.frames_sent == theirs.frames_sent
    assert errors[:2] == errors[2:]


def test_an_acknowledgement_on_a_closed_connection_is_pikas_error():
    """As all that is written there."""
    output = Output()
    internals.write_acks_readily(output)
    output.is_closed = True
    with pytest.raises(ConnectionWrongStateError):
        output._send_method(1, spec.Basic.Ack(1))


# --- reading properties ---------------------------------------------------------------------------


def header_frame(properties: bytes) -> bytes:
    """A content header of a body of three bytes, on channel 7."""
    payload = struct.pack(">HHQ", BasicProperties.INDEX, 0, 3) + properties
    return struct.pack(">BHL", spec.FRAME_HEADER, 7, len(payload)) + payload + b"\xce"


def reading(keep: Any, buffer: bytes) -> Any:
    """What a connection that keeps what it reads makes of so many bytes."""
    connection = SimpleNamespace(_frame_buffer=buffer)
    keep(connection)
    return connection._read_frame()


@pytest.mark.parametrize("keep", [internals.keep_encoded, internals.keep_unreadable])
def test_frames_are_read_as_pika_reads_them(keep):
    """Also while a part of them is there, and with what comes behind them."""
    properties = b"".join(BasicProperties(headers={"n": 1}, app_id="shop").encode())
    deliver = frame.Method(7, spec.Basic.Deliver("c", 1, False, "ex", "key")).marshal()
    for whole in (header_frame(properties), deliver, frame.Body(7, b"abc").marshal()):
        for size in range(len(whole) + 1):
            assert reading(keep, whole[:size])[0] == frame.decode_frame(whole[:size])[0]
        size, ours = reading(keep, whole + b"more")
        assert (size, vars(ours)) == (len(whole), vars(frame.decode_frame(whole)[1]))
    header = reading(keep, header_frame(properties))[1]
    assert Encoded.of(header.properties).encode() == Encoded.parse(properties).encode()


def test_a_connection_reads_frames_out_of_its_buffer():
    """By a method that nothing else overrides."""
    source = inspect.getsource(Connection._read_frame)
    assert "frame.decode_frame(self._frame_buffer)" in source
    assert "_read_frame()" in inspect.getsource(Connection._on_data_available)


def test_what_pika_cannot_read_ends_a_users_connection_and_no_redrive():
    """There it comes as it stands on the wire, and no more is known of it."""
    table = b"\x01n" + b"d" + struct.pack(">d", float("nan"))
    raw = struct.pack(">HI", 1 << 13, len(table)) + table
    with pytest.raises(ValueError, match="NaN"):
        reading(internals.keep_encoded, header_frame(raw))
    header = reading(internals.keep_unreadable, header_frame(raw))[1]
    assert header.properties == BasicProperties()
    assert b"".join(Encoded.of(header.properties).encode()) == raw
