"""Messages in a spool's file come back as they were, byte for byte."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shield import Envelope
from shield.plugins.actions.spool.storage.chunks import (
    CHUNK_MESSAGES,
    StoredRow,
    chunks_of,
    envelopes_in,
)
from shield.plugins.actions.spool.storage.store import Position, Store

texts = st.text(st.characters(codec="utf-8"), max_size=20)
envelopes = st.builds(
    Envelope,
    destination=st.text(max_size=20),
    body=st.none() | st.binary(max_size=100),
    kind=st.sampled_from(["kafka", "amqp", "fake"]),
    key=st.none() | st.binary(max_size=20),
    headers=st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=20)), max_size=3).map(tuple),
    routing_key=st.none() | st.text(max_size=20),
    timestamp_ms=st.none() | st.integers(-1, 2**63),
    partition=st.none() | st.integers(0, 1000),
    native=st.binary(max_size=30),
    mandatory=st.booleans(),
    producer=st.text(max_size=20),
    marks=st.lists(st.tuples(st.text(max_size=9), st.text(max_size=20)), max_size=3).map(tuple),
)
origins = st.sampled_from(["kafka://a:9092", "amqp://b:5672/"])


@settings(deadline=None, max_examples=60)
@given(messages=st.lists(st.tuples(envelopes, origins), max_size=20))
def test_every_message_comes_back_from_the_file_as_it_was(messages):
    """Text with anything in it, no body or an empty one, any bytes; in order for each broker."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "file", 2**20, "os")
        store.write(chunks_of([StoredRow(envelope, origin) for envelope, origin in messages]))
        for wanted in ("kafka://a:9092", "amqp://b:5672/"):
            found = store.read(wanted, 0, store.last, 100)
            came_back = [envelope for stored in found for envelope in envelopes_in(stored.chunk)]
            assert came_back == [envelope for envelope, origin in messages if origin == wanted]
            assert all(stored.chunk.is_sound for stored in found)
        store.close()


def test_a_chunk_is_bounded_in_messages_and_bytes():
    """So that one that is large does not hold up, or take up, more than it must."""
    small = [StoredRow(Envelope("orders", b"x", "kafka"), "o") for _ in range(3 * CHUNK_MESSAGES)]
    assert [chunk.messages for chunk in chunks_of(small)] == [CHUNK_MESSAGES] * 3
    large = [StoredRow(Envelope("orders", bytes(200_000), "kafka"), "o") for _ in range(3)]
    assert [chunk.messages for chunk in chunks_of(large)] == [1, 1, 1]


def test_a_chunk_knows_when_it_has_changed():
    """One bit is enough, in the heads or in the bytes."""
    (chunk,) = chunks_of([StoredRow(Envelope("orders", b"body", "kafka"), "o")])
    assert chunk.is_sound
    assert not dataclasses.replace(chunk, payload=b"bodz").is_sound
    assert not dataclasses.replace(chunk, heads=chunk.heads.replace("orders", "orderz")).is_sound


def test_the_oldest_sorts_first():
    """By chunk, then by place."""
    assert sorted([Position(2, 0), Position(1, 9), Position(1, 2)])[0] == Position(1, 2)
