"""Dead letters that others wrote say where they were going, within bounds."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.dead_letters import FORMS, PREFIXES, known
from shield.envelope import Envelope
from shield.headers import DESTINATION


def record(*headers, kind="kafka", **more):
    """A message that lies where others set it aside."""
    return Envelope("dead", b"body", kind, b"key", headers=headers, **more)


TIME = struct.pack(">q", 1_700_000_000_000)


def spring(topic=b"orders", partition=b"\x00\x00\x00\x03", time=TIME):
    prefix = "kafka_dlt-original-"
    return (
        (f"{prefix}topic", topic),
        (f"{prefix}partition", partition),
        (f"{prefix}offset", struct.pack(">q", 42)),
        (f"{prefix}timestamp", time),
        ("kafka_dlt-exception-fqcn", b"java.lang.Exception"),
    )


def test_spring_s_numbers_are_big_endian_bytes():
    """Topic, partition and time come back; its headers are gone, the user's stay."""
    was = known(record(("own", b"1"), *spring())).restored()
    assert was.destination == "orders"
    assert was.timestamp_ms == 1_700_000_000_000
    assert was.headers == (("own", b"1"),)
    assert (was.body, was.key) == (b"body", b"key")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.prefix)
def test_each_form_names_its_topic(form):
    """All that it has written is taken off."""
    found = known(record((f"{form.prefix}topic", b"orders.created"), ("own", None)))
    assert found.restored().destination == "orders.created"
    assert found.headers == (("own", None),)


def test_the_first_of_several_deaths_counts():
    """Spring adds a header each time."""
    assert known(record(*spring(b"first"), *spring(b"second"))).restored().destination == "first"


@pytest.mark.parametrize(
    "topic", [b"", b"..", b"a b", b"\xff", b"a" * 250, b"file:///etc/passwd", b"${HOME}", None]
)
def test_what_is_no_topic_says_nothing(topic):
    """It stays a message that says nothing of where it was going."""
    envelope = record(("__connect.errors.topic", topic))
    assert known(envelope) is envelope


@pytest.mark.parametrize(
    ("partition", "time"),
    [(b"3", b"1"), (b"\xff" * 4, b"\xff" * 8), (b"", b""), (b"9" * 5000, None)],
)
def test_numbers_that_cannot_be_read_are_left_out(partition, time):
    """The topic counts all the same."""
    found = known(
        record(
            *spring(partition=partition, time=time),
        )
    )
    assert dict(found.marks) == {DESTINATION: "orders"}


def test_rabbitmq_s_first_death_names_exchange_and_key():
    """A queue, where it came by the default exchange."""
    headers = (("x-first-death-exchange", b"orders"), ("x-first-death-routing-key", b"a.b"))
    was = known(record(*headers, kind="amqp", routing_key="dead")).restored()
    assert (was.destination, was.exchange, was.routing_key) == ("orders/a.b", "orders", "a.b")
    headers = (("x-first-death-exchange", b""), ("x-first-death-routing-key", b"queue"))
    was = known(record(*headers, kind="amqp", routing_key="dead")).restored()
    assert (was.destination, was.exchange, was.routing_key) == ("queue", "", "queue")


def test_a_header_that_the_operator_names_goes_first():
    """As a topic, or as `EXCHANGE/KEY`, or a queue."""
    named = ("came-from", b"theirs")
    assert known(record(named, *spring()), "came-from").restored().destination == "theirs"
    was = known(record(("came-from", b"ex/k.e/y"), kind="amqp", routing_key="dead"), "came-from")
    assert (was.restored().exchange, was.restored().routing_key) == ("ex", "k.e/y")
    was = known(record(("came-from", b"queue"), kind="amqp", routing_key="dead"), "came-from")
    assert (was.restored().exchange, was.restored().routing_key) == ("", "queue")


def test_what_shield_has_set_aside_itself_is_not_read_anew():
    """Its own headers say more."""
    envelope = record(*spring(), marks=((DESTINATION, "ours"),))
    assert known(envelope) is envelope


NAMES = st.sampled_from([f"{p}{f}" for p in PREFIXES for f in ("topic", "partition", "timestamp")])


@given(st.lists(st.tuples(NAMES | st.text(), st.none() | st.binary(max_size=300))), st.text())
def test_nothing_that_strangers_write_raises(headers, name):
    """And what comes of it can be restored."""
    for kind in ("kafka", "amqp"):
        envelope = record(*headers, kind=kind, routing_key=None if kind == "kafka" else "dead")
        assert len(known(envelope, name).restored().destination) <= 1024
