"""Headers of ours are a stranger's word: read with bounds, and no exception comes of it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shield import Deduplicator, Envelope, Message
from shield.headers import (
    ATTEMPT,
    BROKER,
    CARRIED,
    DESTINATION,
    ESCAPE,
    HEADERS,
    KEY,
    LONGEST_ID,
    MESSAGE_ID,
    NATIVE,
    OURS,
    PARTITION,
    ROUTING_KEY,
    SIGNATURE,
    TIMESTAMP,
    attempts,
    identity,
    split_sent,
    split_stored,
)
from shield.selection import Selection
from shield.signing import Signer

DEEP = b"[" * 100_000
DIGITS = b"9" * 5000
POISON = [
    (ATTEMPT, DIGITS),
    (ATTEMPT, b"-1"),
    (ATTEMPT, "٣".encode()),
    (ATTEMPT, b"\xff"),
    (BROKER, b"file:///etc/passwd?"),
    (BROKER, b"kafka://user:${HOME}@host:9092"),
    (BROKER, b"kafka://${HOME}:9092"),
    (BROKER, b"kafka://user@host"),
    (BROKER, b"nonsense"),
    (DESTINATION, b""),
    (DESTINATION, None),
    (DESTINATION, b"\xff"),
    (DESTINATION, b"x" * 100_000),
    (HEADERS, DEEP),
    (HEADERS, b'{"a": 1}'),
    (HEADERS, b'[["a", 7]]'),
    (HEADERS, b'[["\\ud800", null]]'),
    (HEADERS, b"[" + DIGITS + b"]"),
    (KEY, b"%%%"),
    (MESSAGE_ID, b""),
    (MESSAGE_ID, b"x" * (LONGEST_ID + 1)),
    (NATIVE, b"no base64"),
    (PARTITION, b"4294967296"),
    (PARTITION, DIGITS),
    (ROUTING_KEY, b"x" * 100_000),
    (SIGNATURE, b"v1:"),
    (TIMESTAMP, b"yesterday"),
    (TIMESTAMP, b"-99999999999999"),
    (TIMESTAMP, DIGITS),
]

values = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.integers().map(lambda number: str(number).encode()),
    st.sampled_from([value for _, value in POISON]),
    st.binary(max_size=20).map(base64.b64encode),
    st.recursive(st.none() | st.text(max_size=5), st.lists, max_leaves=8).map(
        lambda tree: json.dumps(tree).encode()
    ),
)
anything = st.lists(st.tuples(st.sampled_from(sorted(OURS)) | st.text(max_size=9), values)).map(
    tuple
)


def stored(headers, body=b"body"):
    """Return the envelope of what lies in an overflow topic."""
    own, marks = split_stored(headers)
    return Envelope("overflow", body, "kafka", headers=own, marks=marks)


@given(anything)
@example(((DESTINATION, b"orders"), (HEADERS, DEEP)))
@example(((DESTINATION, b"orders"), (ATTEMPT, DIGITS)))
def test_whatever_headers_say_no_exception_comes_of_it(headers):
    """Parted, judged, selected, restored, verified and written again."""
    envelope = stored(headers)
    was = envelope.restored()
    assert was.fault is None or envelope.fault is not None
    assert was.destination
    assert len(was.attempt.__str__()) <= 9
    assert Signer([b"k"]).known(envelope).restored().body == was.body or was.body is None
    for selection in (Selection("attempt==1 && header a!=b && producer==x", 5), Selection()):
        selection.means(envelope)
    for kind in ("kafka", "amqp"):
        envelope.foreign_headers(kind)
        was.foreign_headers(kind)
    assert repr(envelope.id)
    assert envelope.message().header(ATTEMPT) is None or attempts(envelope.message()) >= 0
    identity(Message("orders", 1, headers=headers))
    Deduplicator(10).seen(headers)


@pytest.mark.parametrize(("name", "value"), POISON)
def test_what_cannot_be_read_is_said_by_name_in_few_words(name, value):
    """A message has a fault that names the header, however long what was found is."""
    headers = tuple({DESTINATION: b"orders", name: value}.items())
    fault = stored(headers).fault
    assert fault is not None
    assert fault.startswith(name)
    assert len(fault) < 200


def test_what_shield_wrote_twice_is_not_what_shield_wrote():
    """A doubled header of ours is a fault, whichever of the two came from us."""
    headers = ((DESTINATION, b"orders"), (ATTEMPT, b"1"), (DESTINATION, b"payments"))
    assert "twice" in (stored(headers).fault or "")


@pytest.mark.parametrize("name", sorted(OURS - CARRIED))
def test_a_users_header_of_that_name_stays_his_own(name):
    """It is not taken for ours when his message is diverted, and comes back as it was."""
    sent = ((name, b"file:///etc/passwd"), (ESCAPE + name, None), ("shield-criticality", b"low"))
    own, marks = split_sent(sent)
    assert (own, marks) == (sent, ())
    envelope = Envelope("orders", b"body", "kafka", headers=own)
    aside = envelope.diverted({DESTINATION: "orders", MESSAGE_ID: "1"}).all_headers()
    back = stored(aside)
    assert dict(back.marks) == {DESTINATION: "orders", MESSAGE_ID: "1"}
    assert back.restored().headers == sent
    assert back.restored().broker is None


@pytest.mark.parametrize("value", [DIGITS, b"", b"\xff", None])
def test_an_attempt_that_is_no_number_counts_as_none(value):
    """Of a message that is sent, or given to a consumer: the header stays, as its user's own."""
    assert attempts(Message("orders", 1, headers=[(ATTEMPT, value)])) == 0
    assert split_sent(((ATTEMPT, value),)) == (((ATTEMPT, value),), ())


def test_a_strangers_id_is_kept_where_it_is_of_a_sensible_length():
    """A longer one is not remembered, and the message gets one of ours."""
    own = Message("orders", 1, headers=[(MESSAGE_ID, b"mine")])
    assert identity(own)[MESSAGE_ID] == "mine"
    long = [(MESSAGE_ID, b"x" * 10**6)]
    assert len(identity(Message("orders", 1, headers=long))[MESSAGE_ID]) == 36
    fresh = Deduplicator(10)
    assert not fresh.seen(long)
    assert not len(fresh)


# --- signed ---------------------------------------------------------------------------------

KEYS = [b"first key, of some length", b"second key, of some length"]
MARKS = {DESTINATION: "orders", MESSAGE_ID: "1", ATTEMPT: "1", "shield-rule": "orders"}


def signed(keys=KEYS, **fields):
    """Return what lies in an overflow topic, signed."""
    envelope = replace(Envelope("orders", b"body", "kafka", b"key", (("a", b"1"),)), **fields)
    aside = envelope.diverted(MARKS, Signer(keys))
    own, marks = split_stored(aside.all_headers())
    return replace(envelope, destination="overflow", headers=own, marks=marks)


def test_a_signature_holds_for_every_key_and_only_for_these():
    """The first signs; each of the list vouches, so that keys can be exchanged one by one."""
    assert Signer([b"new", *KEYS]).vouches(signed())
    assert Signer(KEYS[::-1]).vouches(signed())
    assert not Signer(KEYS[1:]).vouches(signed())
    assert not Signer([b"another"]).vouches(signed())


@pytest.mark.parametrize(
    "change",
    [
        {"body": b"another"},
        {"body": None},
        {"key": b"another"},
        {"key": None},
        {"marks": ((DESTINATION, "payments"),)},
        {"marks": ((BROKER, "kafka://evil:9092"),)},
        {"marks": ((ATTEMPT, "0"),)},
        {"marks": ((MESSAGE_ID, "2"),)},
        {"marks": ((TIMESTAMP, "1"),)},
        {"marks": ((PARTITION, "1"),)},
        {"marks": ((ROUTING_KEY, "orders"),)},
        {"marks": ((SIGNATURE, "v1:" + "0" * 64),)},
        {"marks": ((SIGNATURE, "\N{REPLACEMENT CHARACTER}"),)},
    ],
)
def test_a_signature_holds_for_no_other_message_and_no_other_words(change):
    """Body, key and each of our headers are bound by it."""
    real = signed()
    marks = {**dict(real.marks), **dict(change.get("marks", ()))}
    forged = replace(real, **{**change, "marks": tuple(marks.items())})
    assert Signer(KEYS).vouches(real)
    assert not Signer(KEYS).vouches(forged)


def test_what_no_key_vouches_for_has_no_headers_of_ours():
    """They are as any other of its user's: nothing is restored from them."""
    real = signed()
    forged = replace(real, body=b"another")
    known = Signer(KEYS).known(forged)
    assert known.restored() is known
    assert (DESTINATION, b"orders") in known.headers
    assert Signer(KEYS).known(real) is real


@given(
    body=st.none() | st.binary(max_size=20),
    key=st.none() | st.binary(max_size=9),
    timestamp_ms=st.none() | st.integers(0, 2**41),
    kind=st.sampled_from(["kafka", "amqp"]),
)
def test_a_signature_lives_through_every_kind_of_broker(body, key, timestamp_ms, kind):
    """What another kind of broker cannot hold, as a key or a tombstone, is signed all the same."""
    envelope = Envelope("orders", body, "kafka", key, (("a", None),), timestamp_ms=timestamp_ms)
    headers = envelope.diverted(MARKS, Signer(KEYS)).foreign_headers(kind)
    own, marks = split_stored(headers)
    there = Envelope("overflow", body or b"", kind, None, own, marks=marks)
    if kind == "kafka":
        there = replace(there, body=body, key=key)
    assert Signer(KEYS).vouches(there)


def test_a_key_is_never_shown():
    """Not in what represents a signer."""
    assert "key" not in repr(Signer([b"key canary"])).replace("keys", "")
