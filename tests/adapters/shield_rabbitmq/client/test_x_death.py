"""RabbitMQ's dead letters: the first death is found, and the broker's headers are not sent on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from shield.dead_letters import known
from shield_rabbitmq.client.envelopes import frames_of, stored_envelope
from shield_rabbitmq.client.raw_properties import Encoded
from shield_rabbitmq.client.x_death import DEATHS, origin_of, with_origin


def death(queue, exchange, *keys, reason="rejected"):
    return {"queue": queue, "reason": reason, "exchange": exchange, "routing-keys": list(keys)}


LATER, FIRST = death("retry", "", "retry", reason="expired"), death("orders", "shop", "a", "cc")
NAMED = {"x-first-death-queue": "orders", "x-first-death-reason": "rejected"}


def test_the_first_death_is_the_one_that_the_broker_names():
    """Or the last of the list, where none is named."""
    assert origin_of({DEATHS: [LATER, FIRST], **NAMED}) == ("shop", "a")
    assert origin_of({DEATHS: [FIRST, LATER], **NAMED}) == ("shop", "a")
    assert origin_of({DEATHS: [LATER, FIRST]}) == ("shop", "a")


@pytest.mark.parametrize(
    "deaths", [None, "text", [], [1], [{}], [death("q", None, "k")], [death("q", "e")], [[FIRST]]]
)
def test_what_cannot_be_read_says_nothing(deaths):
    """It stays where it is."""
    assert origin_of({DEATHS: deaths}) is None


TEXT = st.text(max_size=5)
JUNK = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
FIELDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["queue", "exchange", "routing-keys"], JUNK)
)


@given(st.lists(FIELDS | JUNK, max_size=4))
def test_no_table_of_a_stranger_raises(deaths):
    """Whatever it holds."""
    origin_of({DEATHS: deaths})


def test_what_goes_back_has_no_headers_of_the_broker():
    """Its own stay."""
    headers = {
        "own": "header",
        DEATHS: [FIRST],
        "x-first-death-exchange": "shop",
        "x-last-death-queue": "orders",
        **NAMED,
    }
    properties = BasicProperties(headers=headers, priority=3)
    stored = stored_envelope("", "dead", b"body", Encoded.of(properties))
    frames = frames_of(known(with_origin(stored, headers)).restored())
    assert (frames.exchange, frames.routing_key, frames.body) == ("shop", "a", b"body")
    sent = frames.properties.read()
    assert (sent.headers, sent.priority) == ({"own": "header"}, 3)
