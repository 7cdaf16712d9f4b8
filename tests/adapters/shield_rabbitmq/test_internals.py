"""The private parts of pika that the publisher touches are as they were read."""

import inspect

import pika
from pika import SelectConnection


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
