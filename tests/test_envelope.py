"""An envelope holds the whole message, also where it is carried through a foreign broker."""

from __future__ import annotations

import string
import uuid
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shield import Envelope
from shield.headers import CARRIED, ESCAPE, OURS, diverted, split_stored
from shield.ids import new_id
from shield.testing import AdmitNothing
from tests.making import over, shield_with

NOTHING = {"name": "orders", "match": "*", "admit_nothing": {}}
REFUSING = shield_with(NOTHING, plugins=[AdmitNothing])

names = st.text(string.ascii_lowercase, min_size=1, max_size=8)
lookalikes = st.builds(
    lambda times, name: ESCAPE * times + name,
    st.integers(0, 2),
    st.sampled_from([*sorted(OURS - CARRIED), "shield-criticality", "shield-users-own", ESCAPE]),
)
values = st.none() | st.binary(max_size=20)
headers = st.lists(st.tuples(names | lookalikes, values), max_size=4).map(tuple)
kafka = st.builds(
    Envelope,
    destination=names,
    body=st.none() | st.binary(max_size=50),
    kind=st.just("kafka"),
    key=st.none() | st.binary(max_size=10),
    headers=headers,
    timestamp_ms=st.none() | st.integers(0, 2**41),
    partition=st.none() | st.integers(0, 2**31 - 1),
)
amqp = st.builds(
    lambda exchange, key, **rest: Envelope(
        f"{exchange}/{key}" if exchange else key, routing_key=key, kind="amqp", **rest
    ),
    exchange=st.just("") | names,
    key=names,
    body=st.binary(max_size=50),
    headers=headers,
    native=st.binary(max_size=30),
)


def carried(envelope: Envelope, kind: str) -> Envelope:
    """Divert it, as a transport of that kind stores it, and read it back."""
    verdict = over(REFUSING, envelope.destination, routing_key=envelope.routing_key)
    stored = envelope.diverted(diverted(verdict)).foreign_headers(kind)
    own, marks = split_stored(stored)
    same = kind == envelope.kind
    return Envelope(
        destination="overflow",
        body=envelope.body or b"" if kind != "kafka" else envelope.body,
        kind=kind,
        key=envelope.key if kind == "kafka" else None,
        headers=own,
        native=envelope.native if same else b"",
        marks=marks,
    )


@given(kafka, st.sampled_from(["kafka", "amqp", "file"]))
def test_a_kafka_record_comes_back_through_any_transport(envelope, kind):
    """Body, tombstone, key, headers and timestamp are those it had; our id and attempt stay."""
    back = carried(envelope, kind).restored()
    assert replace(back, marks=(), producer="") == envelope
    assert {name for name, _ in back.marks} == {"shield-message-id", "shield-attempt"}
    assert back.attempt == 1


@given(amqp, st.sampled_from(["kafka", "amqp", "file"]))
def test_an_amqp_message_comes_back_through_any_transport(envelope, kind):
    """Exchange, routing key, headers and encoded properties are those it had."""
    back = carried(envelope, kind).restored()
    assert replace(back, marks=(), producer="") == envelope
    assert back.exchange == envelope.exchange


def test_what_was_never_diverted_comes_back_as_it_is():
    """Without our headers there is nothing to restore."""
    plain = Envelope("orders", b"body", "kafka", headers=(("a", b"1"),))
    assert plain.restored() is plain
    assert plain.id is None
    assert plain.attempt == 0


def test_the_default_exchange_has_no_name_also_where_the_queue_has_a_slash():
    """`a/b` is a queue of that name, or exchange a: the routing key tells."""
    assert Envelope("a/b", b"", "amqp", routing_key="a/b").exchange == ""
    assert Envelope("a/b", b"", "amqp", routing_key="b").exchange == "a"


def test_policies_see_of_it_what_they_saw_of_the_message():
    """Destination, size, producer, key, headers and routing key."""
    envelope = Envelope("orders", b"body", "kafka", b"key", (("tenant", b"a"),), producer="p")
    message = envelope.message()
    assert (message.destination, message.size, message.producer) == ("orders", 7, "p")
    assert (message.key, message.header("tenant")) == (b"key", "a")


def test_an_id_is_a_random_uuid():
    """As `uuid` would write it: version 4, and no two alike."""
    ids = [new_id() for _ in range(1000)]
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {
        (4, uuid.RFC_4122)
    }
    assert all(str(uuid.UUID(text)) == text for text in ids)
    assert len(set(ids)) == 1000
