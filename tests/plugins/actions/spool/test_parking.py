"""Messages that can never be delivered: parked, so that they hold up no other."""

from __future__ import annotations

import sqlite3

import pytest

from shield import Kind, fate
from shield.plugins.actions.spool.snapshot import entries_in
from shield.testing import FakeClient
from shield.testing.fake_client import FakeTransport
from tests.eventually import eventually
from tests.making import counts
from tests.plugins.actions.spool.conftest import SHUT, WIDE, arrived, spool
from tests.plugins.actions.spool.test_action import Listening


class BadMessageError(Exception):
    """What a broker answers that will never take a message."""


def refuse_bad(monkeypatch):
    """Have the broker refuse bodies that begin with `bad`, for good."""
    begin = FakeClient.begin

    def pick(client, record, answered):
        if record.body.startswith(b"bad"):
            answered(BadMessageError("too bad"))
        else:
            begin(client, record, answered)

    monkeypatch.setattr(FakeClient, "begin", pick)


@pytest.fixture
def certain(monkeypatch):
    """The adapter knows for certain that such a message will never be taken."""
    refuse_bad(monkeypatch)
    monkeypatch.setattr(
        FakeTransport, "is_faulty", lambda _, error: isinstance(error, BadMessageError)
    )


@pytest.fixture
def picky(spooling, monkeypatch):
    """A client whose broker refuses bodies that begin with `bad`, for good."""
    client = spooling.client(SHUT)
    spool(client, b"1", b"bad", b"2")
    client.close(5)

    refuse_bad(monkeypatch)
    monkeypatch.setattr(
        FakeTransport, "is_hopeless", lambda _, error: isinstance(error, BadMessageError)
    )
    listening = Listening()
    after = spooling.client(WIDE, plugins=[listening], max_attempts=3)
    after.listening = listening
    return after


def test_it_is_parked_after_its_attempts_and_holds_up_no_other(picky, spooling, caplog):
    """It stays in the file, counted as spooled; an event and the log tell why."""
    assert sorted(arrived(picky, 2)) == [b"1", b"2"]
    eventually(lambda: (Kind.PARKED, "orders") in picky.listening.kinds)
    assert "is parked after 3 attempts: BadMessageError('too bad')" in caplog.text
    eventually(lambda: [e.is_parked for e in entries_in(spooling.file)] == [True])
    assert counts(picky.shield.ledger()) == {"offered": 3, "delivered": 2, "spooled": 1}


def test_what_is_parked_stays_so_in_the_next_process(picky, spooling):
    """It is counted there, and not tried."""
    eventually(lambda: picky.ack() or (Kind.PARKED, "orders") in picky.listening.kinds)
    eventually(lambda: picky.ack() or picky.shield.ledger().delivered == 2)
    picky.close(5)
    after = spooling.client({"in_flight": {"messages": 1}})
    assert counts(after.shield.ledger()) == {"offered": 1, "spooled": 1}
    after.publish("orders", b"in the way")
    spool(after, b"later")
    after.ack()
    eventually(lambda: after.unanswered)
    assert [record.body for record in after.unanswered] == [b"later"]
    after.ack()


def test_a_broker_in_trouble_parks_nothing(spooling):
    """However often sends fail for reasons that are not the message's."""
    client = spooling.client(SHUT)
    spool(client, b"1")
    client.close(5)
    after = spooling.client(WIDE, max_attempts=1)
    for _ in range(3):
        eventually(lambda: after.unanswered)
        after.fail(ConnectionError("no broker"))
    assert arrived(after, 1) == [b"1"]


def test_a_file_that_cannot_record_deliveries_repeats_none_of_them(spooling, monkeypatch):
    """What could not be written down is kept in mind, and written when that works again."""
    client = spooling.client(SHUT)
    spool(client, b"1", b"2")
    client.close(5)
    after = spooling.client(WIDE)
    store = after.shield.rules[0].chain[0]._spool._store
    write, failed = store.write, []

    def full(*arguments, **more):
        if len(failed) < 3 and arguments[1]:
            failed.append(True)
            raise sqlite3.OperationalError("database or disk is full")
        write(*arguments, **more)

    monkeypatch.setattr(store, "write", full)
    assert arrived(after, 2) == [b"1", b"2"]
    eventually(lambda: len(failed) == 3 and not list(entries_in(spooling.file)))


def test_what_is_faulty_is_parked_at_its_first_failure(spooling, certain):
    """Where the adapter is certain; ten tries would only hold up the rest."""
    client = spooling.client(SHUT)
    spool(client, b"bad", b"good")
    client.close(5)
    after = spooling.client(WIDE)
    assert arrived(after, 1) == [b"good"]
    eventually(lambda: [e.is_parked for e in entries_in(spooling.file)] == [True])
    (entry,) = entries_in(spooling.file)
    assert (entry.failure.times, entry.envelope.body) == (1, b"bad")


ORDERED = {**WIDE, "order": "key"}


def test_what_is_parked_holds_up_no_other_of_its_key(spooling, certain):
    """Later messages of its key are sent at once again; also in the next process."""
    client = spooling.client({**SHUT, "order": "key"})
    client.publish("orders", b"admitted", b"other")
    client.ack()
    spool(client, b"bad", key=b"k")
    client.close(5)
    after = spooling.client(ORDERED)
    eventually(lambda: [e.is_parked for e in entries_in(spooling.file)] == [True])
    assert fate(after.publish("orders", b"1", b"k")) == "sent"
    after.ack()
    after.close(5)
    last = spooling.client(ORDERED)
    assert last.shield.ledger().spooled == 1
    assert fate(last.publish("orders", b"2", b"k")) == "sent"
    last.ack()
    assert last.shield.ledger().balanced
