"""Properties as they are on the wire: nothing that a message brings becomes something else."""

from __future__ import annotations

import struct
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from shield_rabbitmq.client.raw_properties import Encoded, ReadProperties, long_string, value_of

NAMES = st.text(max_size=40)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.integers(-(2**31), 2**31 - 1).map(lambda n: Decimal(n) / 100)
    | st.datetimes(min_value=datetime(1970, 1, 1)).map(lambda t: t.replace(tzinfo=UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.none() | st.text(max_size=40)
PROPERTIES = st.builds(
    BasicProperties,
    content_type=TEXTS,
    content_encoding=TEXTS,
    headers=st.none() | st.dictionaries(NAMES, VALUES, max_size=5),
    delivery_mode=st.sampled_from([None, 1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=TEXTS,
    reply_to=TEXTS,
    expiration=st.none() | st.integers(0, 10**9).map(str),
    message_id=TEXTS,
    timestamp=st.none() | st.integers(0, 2**64 - 1),
    type=TEXTS,
    user_id=TEXTS,
    app_id=TEXTS,
    cluster_id=TEXTS,
)


def wire(properties: BasicProperties | Encoded) -> bytes:
    return b"".join(properties.encode())


@given(PROPERTIES)
def test_what_pika_writes_is_read_and_written_the_same(properties):
    """Byte for byte."""
    assert wire(Encoded.of(properties)) == wire(properties)


MISREAD = {
    b"double": b"d" + struct.pack(">d", 0.3),
    b"float": b"f" + struct.pack(">f", 0.5),
    b"none": b"d" + struct.pack(">d", float("nan")),
    b"short": b"s" + struct.pack(">h", -5),
    b"unsigned": b"i" + struct.pack(">I", 2**32 - 1),
    b"byte": b"b" + b"\xff",
    b"no text": long_string(b"\xff\xfe"),
    b"late": b"T" + struct.pack(">Q", 2**63),
    b"scale": b"D\x02" + struct.pack(">i", 150),
}


@pytest.mark.parametrize("value", MISREAD.values(), ids=lambda value: value[:1].decode())
def test_what_pika_reads_wrongly_stays_as_it_was(value):
    """Alone, in a table, in an array, and where a name is there twice."""
    array = b"A" + struct.pack(">I", len(value)) + value
    table = b"F" + struct.pack(">I", 2 + len(value)) + b"\x01n" + value
    given = Encoded({}, [(b"a", value), (b"a", value), (b"b", array), (b"c", table)])
    read = ReadProperties()
    try:
        read.decode(wire(given))
    except (ValueError, OverflowError):
        assert value in (MISREAD[b"none"], MISREAD[b"late"])
    assert wire(Encoded.of(read)) == wire(given)
    for found in (value, array, table):
        value_of(found)


def test_a_double_is_read_with_what_is_behind_its_point():
    """For policies and classifiers."""
    assert value_of(MISREAD[b"double"]) == 0.3


@given(st.binary(max_size=60))
def test_what_is_no_properties_is_a_value_error(raw):
    """Whatever it is."""
    with suppress(ValueError):
        Encoded.parse(raw)


def test_properties_that_were_read_look_as_any_others():
    """Nothing in them, in how they compare or print, or in a copy, tells of what they keep."""
    given = BasicProperties(headers={"n": 1}, app_id="shop")
    read = ReadProperties().decode(wire(given))
    assert vars(read) == vars(given)
    assert read == given
    assert repr(read) == repr(given)
    assert isinstance(read, BasicProperties)
