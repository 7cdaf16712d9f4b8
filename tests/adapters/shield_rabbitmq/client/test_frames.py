"""One message as it goes on the wire."""

import pytest
from pika import BasicProperties, frame, spec

from shield_rabbitmq.client.frames import CHANNEL, Frames, body_of, check_address, check_properties


def frames_of(data):
    found = []
    while data:
        used, value = frame.decode_frame(data)
        found.append(value)
        data = data[used:]
    return found


def frames(body=b"body", properties=None, exchange="exchange", key="key"):
    return Frames(exchange, key, body, properties, True)


def test_what_is_written_is_what_pika_reads():
    """Method, header and body frames, decoded by pika itself."""
    properties = BasicProperties(headers={"a": 1}, delivery_mode=2)
    method, header, body = frames_of(b"".join(frames(properties=properties).cut(100)))
    assert isinstance(method.method, spec.Basic.Publish)
    assert (method.method.exchange, method.method.routing_key) == ("exchange", "key")
    assert method.method.mandatory
    assert header.properties == properties
    assert header.body_size == 4
    assert body.fragment == b"body"
    assert {each.channel_number for each in (method, header, body)} == {CHANNEL}


@pytest.mark.parametrize("size", [0, 1, 10, 11, 20, 25])
def test_a_body_is_cut_into_frames(size):
    """None is larger than allowed, and together they are the body; an empty one has none."""
    body = bytes(range(size))
    fragments = [each.fragment for each in frames_of(b"".join(frames(body).cut(10)))[2:]]
    assert b"".join(fragments) == body
    assert len(fragments) == -(-size // 10)
    assert all(len(fragment) <= 10 for fragment in fragments)


def test_it_knows_its_own_properties():
    """Those that come back with a return are told from others."""
    one = frames(properties=BasicProperties(headers={"n": 1, "deep": {"list": [1, "a", True]}}))
    header = frames_of(one.head)[1]
    assert one.has(header.properties)
    assert not one.has(BasicProperties(headers={"n": 2}))
    assert not one.has(BasicProperties())


def test_the_destination_is_what_rules_match():
    """`exchange/routing-key`; the queue's name alone for the default exchange."""
    assert frames().destination == "exchange/key"
    assert frames(exchange="", key="queue").destination == "queue"


@pytest.mark.parametrize("body", [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc"])
def test_bytes_and_text_are_bodies(body):
    """Text becomes UTF-8."""
    assert body_of(body) == b"abc"


@pytest.mark.parametrize("body", [None, 1, {"a": 1}, ["a"], object()])
def test_nothing_else_is_a_body(body):
    """The error says what was found."""
    with pytest.raises(TypeError, match=r"body: found .*allowed are bytes and str"):
        body_of(body)


@pytest.mark.parametrize(("exchange", "key"), [(None, "key"), ("exchange", 1), (b"x", "key")])
def test_an_address_is_text(exchange, key):
    """The error names the argument."""
    with pytest.raises(TypeError, match=r"(exchange|routing_key): found .*allowed is str"):
        check_address(exchange, key)


def test_an_address_has_255_bytes_at_the_most():
    """Bytes of UTF-8, not characters."""
    check_address("x" * 255, "é" * 127)
    with pytest.raises(ValueError, match=r"routing_key: found 256 bytes"):
        check_address("x", "é" * 128)


@pytest.mark.parametrize(
    "properties", [{}, "text", BasicProperties(headers=[("a", 1)]), BasicProperties]
)
def test_properties_are_pikas_own(properties):
    """Found where they are checked, not on the write thread."""
    with pytest.raises(TypeError, match=r"properties"):
        check_properties(properties)


@pytest.mark.parametrize(
    "properties",
    [
        BasicProperties(headers={"a": object()}),
        BasicProperties(delivery_mode="2"),
        BasicProperties(content_type=1),
        BasicProperties(expiration=60),
    ],
)
def test_properties_that_cannot_be_encoded_are_a_type_error(properties):
    """It names them; pika's own error is its cause."""
    with pytest.raises(TypeError, match=r"properties: .* cannot be encoded") as caught:
        frames(properties=properties)
    assert caught.value.__cause__ is not None
