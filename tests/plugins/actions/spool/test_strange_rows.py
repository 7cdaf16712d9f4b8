"""A spool of anybody's making: what is no message in it fails alone, and the next goes on."""

from __future__ import annotations

import json
import sqlite3
import zlib

import pytest

import shield
from shield import Envelope
from shield.plugins.actions.spool.snapshot import entries_in, overview_of
from shield.plugins.actions.spool.storage.chunks import Chunk, StoredRow, envelopes_in
from shield.plugins.actions.spool.storage.recovery import VERIFY_BYTES
from tests.plugins.actions.spool.conftest import SHUT, WIDE, arrived, spool

HEAD = ["orders", "fake", None, True, "fake", None, 0, 1, None, None, [], []]
"""Of a message with a body of one byte."""


def head(**changes):
    """Return the head of a message with some of its twelve parts changed."""
    parts = list(HEAD)
    for place, value in changes.items():
        parts[int(place[1:])] = value
    return parts


HEADS = {
    "no list": 7,
    "deep": "DEEP",
    "a number of 5,000 digits": "DIGITS",
    "no messages": [],
    "more messages than it says": [HEAD, HEAD],
    "no heads": [7],
    "too short": [HEAD[:5]],
    "too long": [[*HEAD, 1]],
    "destination": [head(_0=7)],
    "kind": [head(_1=None)],
    "routing key": [head(_2=["x"])],
    "mandatory": [head(_3="yes")],
    "size below zero": [head(_7=-1)],
    "native size below zero": [head(_6=-5, _7=6)],
    "size of gigabytes": [head(_7=2**40)],
    "size as a truth": [head(_7=True)],
    "timestamp": [head(_8="now")],
    "timestamp beyond all": [head(_8=10**30)],
    "headers": [head(_10="text")],
    "header without value": [head(_10=[["a"]])],
    "header that is no text": [head(_10=[["a", 7]])],
    "header's name": [head(_10=[[7, "a"]])],
    "header beyond latin-1": [head(_10=[["a", "\u20ac"]])],
    "marks": [head(_11=[["a", None]])],
}


def heads_of(what):
    """Return the text of a chunk's heads."""
    found = HEADS[what]
    if found == "DEEP":
        return "[" * 200_000
    if found == "DIGITS":
        return "9" * 5000
    return json.dumps(found)


@pytest.mark.parametrize("what", HEADS)
def test_a_chunk_of_anybodys_making_is_one_error(what):
    """A ValueError, whatever its heads say, with a checksum that is right."""
    heads, payload = heads_of(what), b"x"
    crc = zlib.crc32(payload, zlib.crc32(heads.encode()))
    with pytest.raises(ValueError, match=r"."):
        envelopes_in(Chunk("fake", 1, 10, crc, heads, payload))


COLUMNS = {
    "origin": b"\xff\xfe",
    "at_ms": "yesterday",
    "messages": "many",
    "crc": None,
    "heads": b"\x00\x01",
    "payload": 7,
}


@pytest.fixture
def left(spooling):
    """The file of a process that has ended: three chunks of a message each."""
    client = spooling.client(SHUT)
    for body in (b"1", b"2", b"3"):
        spool(client, body)
    client.close(5)
    return spooling.file


def change(file, column, value):
    connection = sqlite3.connect(file)
    if value is None:
        connection.execute("UPDATE chunks SET crc = crc + 1 WHERE id = 2")
    else:
        connection.execute(f"UPDATE chunks SET {column} = ? WHERE id = 2", (value,))
    connection.commit()
    connection.close()


@pytest.fixture(params=[0, VERIFY_BYTES], ids=["read when it is its turn", "read at opening"])
def _verified(request, monkeypatch):
    monkeypatch.setattr("shield.plugins.actions.spool.storage.recovery.VERIFY_BYTES", request.param)


@pytest.mark.usefixtures("_verified")
@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_of_the_wrong_types_holds_up_no_other(spooling, left, column):
    """Whether the file is read as a whole before, or not."""
    change(left, column, COLUMNS[column])
    client = spooling.client(WIDE)
    assert {b"1", b"3"} <= set(arrived(client, 2))
    assert client.shield.ledger().balanced


@pytest.mark.parametrize("column", COLUMNS)
def test_commands_show_the_others(left, column, caplog):
    """And name the chunk in the log, if it cannot be read."""
    change(left, column, COLUMNS[column])
    overview_of(left).as_dict()
    assert {b"1", b"3"} <= {entry.envelope.body for entry in entries_in(left)}


@pytest.mark.parametrize("places", ["[" * 100_000, "{}", "null", "7", '["x", 1e999]', b"\xff"])
def test_what_was_delivered_is_anybodys_word_too(spooling, left, places):
    """Where it cannot be read, messages come again rather than not at all."""
    connection = sqlite3.connect(left)
    connection.execute("INSERT INTO delivered VALUES (2, ?)", (places,))
    connection.commit()
    connection.close()
    assert set(arrived(spooling.client(WIDE), 3)) == {b"1", b"2", b"3"}


def test_a_message_that_cannot_be_written_fails_alone(spooling):
    """Its neighbours in the same commit are kept."""
    client = spooling.client(SHUT, "drop")
    futures = [client.publish(name, b"x") for name in ("orders", "\ud800", "orders")]
    for future in futures:
        future.result(10)
    assert [shield.fate(future) for future in futures] == ["spooled", "dropped", "spooled"]


def test_what_would_not_be_read_is_not_written():
    """A number beyond all timestamps."""
    with pytest.raises(ValueError, match="larger"):
        StoredRow(Envelope("orders", b"x", "fake", timestamp_ms=10**30), "fake")
