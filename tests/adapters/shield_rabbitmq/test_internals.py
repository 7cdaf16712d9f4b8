"""The private parts of pika that are touched here are as they were read."""

import inspect
from typing import Any

import pika
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties, BlockingConnection, SelectConnection, spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.connection import Connection

from shield_rabbitmq import internals
from shield_rabbitmq.channel import Shielded
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
    for _ in range(2):
        errors = [side.publish(number, method, properties, body) for side in (theirs, ours)]
        assert errors[0] == errors[1]
    assert b"".join(ours.pieces) == b"".join(theirs.pieces)
    assert ours.frames_sent == theirs.frames_sent
    if isinstance(exchange, str) and isinstance(routing_key, str) and 0 < len(body) <= 100:
        assert len(ours.pieces) in (0, 2)
