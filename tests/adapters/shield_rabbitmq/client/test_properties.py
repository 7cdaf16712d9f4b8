"""What a message's properties are while it is set aside, and when it is back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import BasicProperties

from shield import ExpiredError
from shield.headers import ATTEMPT, DESTINATION, MESSAGE_ID, ROUTING_KEY
from shield_rabbitmq.client.properties import brought_back, kept, received, sendable, set_aside
from shield_rabbitmq.client.raw_properties import Encoded
from tests.adapters.shield_rabbitmq.client.test_raw_properties import PROPERTIES, wire

NAMES = (
    ["CC", "BCC", "x-original-exchange", "x-original-routingKey", "x-original-CC"]
    + ["shield-expires-at", "shield-reason", DESTINATION, "shield-criticality", "shield-own-CC"]
    + [f"shield-original-{name}" for name in ("cc", "expiration", "mandatory", "user-id", "key")]
)
HEADERS = st.dictionaries(st.sampled_from(NAMES), st.text(max_size=5) | st.integers(0, 9))
PLACES = st.sampled_from([("ex", "key"), ("", "queue"), ("ex", ""), ("a/b", "c/d")])


def marks_of(exchange: str, key: str) -> dict[str, str]:
    destination = f"{exchange}/{key}" if exchange else key
    return {DESTINATION: destination, ROUTING_KEY: key, MESSAGE_ID: "id", ATTEMPT: "1"}


def text_of(encoded: Encoded) -> BasicProperties:
    properties = BasicProperties()
    properties.decode(wire(encoded))
    return properties


@given(PROPERTIES, HEADERS, PLACES, st.booleans())
@example(BasicProperties(), {"x-original-exchange": "", "CC": 1}, ("", "queue"), False)
def test_what_was_set_aside_comes_back_as_it_was(properties, headers, place, mandatory):
    """Every property and header, those of our own names too; the caller's stay as they are."""
    properties.headers = {**(properties.headers or {}), **headers} or None
    for name in (MESSAGE_ID, ATTEMPT):
        (properties.headers or {}).pop(name, None)
    before = wire(properties)
    aside = set_aside(kept(Encoded.of(properties), mandatory, 0), marks_of(*place))
    back, marks = brought_back(Encoded.parse(wire(aside)))
    sent, is_mandatory = sendable(back, 0) if properties.expiration != "0" else (back, mandatory)
    if properties.expiration != "0":
        sent.headers = sent.headers or (None if properties.headers is None else [])
        assert wire(sent) == before
    assert is_mandatory is mandatory
    assert dict(marks) == marks_of(*place)
    assert wire(properties) == before


@given(PROPERTIES, HEADERS)
def test_nothing_routes_or_expires_what_is_set_aside(properties, headers):
    """Nor is it bound to a user."""
    properties.headers = {**(properties.headers or {}), **headers}
    aside = text_of(set_aside(kept(Encoded.of(properties), True, 0), marks_of("ex", "key")))
    assert aside.expiration is aside.user_id is None
    assert not {"CC", "BCC"} & aside.headers.keys()
    assert aside.headers[DESTINATION] == "ex/key"


def test_a_consumers_copy_comes_back_to_its_queue_alone():
    """What routed it is there to be seen; also when it is set aside once more."""
    came = Encoded.of(BasicProperties(headers={"CC": ["audit"], "n": 1}, user_id="shop"))
    copy = received(came, "orders", "created", "worker")
    aside = set_aside(kept(copy, True, 0), marks_of("", "mail"))
    assert text_of(aside).headers["x-original-exchange"] == "orders"
    back, marks = brought_back(aside)
    back.add_texts(marks[:0])
    expected = {
        "x-original-CC": ["audit"],
        "n": 1,
        "x-original-exchange": "orders",
        "x-original-routingKey": "created",
        "x-original-user-id": "shop",
    }
    assert text_of(back).headers == expected
    again, _ = brought_back(
        set_aside(kept(received(back, "", "mail", "worker"), True, 0), marks_of("", "mail"))
    )
    assert text_of(again).headers == expected


def test_a_consumers_copy_keeps_a_user_that_may_publish_it():
    """As its connection's own."""
    came = Encoded.of(BasicProperties(user_id="shop"))
    assert text_of(received(came, "", "mail", "shop")) == BasicProperties(user_id="shop")


@pytest.mark.parametrize(("after_ms", "left"), [(0, "5000"), (2000, "3000"), (4999, "1")])
def test_the_time_to_live_counts_from_when_a_message_was_first_sent(after_ms, left):
    """What comes back has what is left of it."""
    own = kept(Encoded.of(BasicProperties(expiration="5000")), True, 1_000_000)
    sent, _ = sendable(own, 1_000_000 + after_ms)
    assert text_of(sent) == BasicProperties(expiration=left, headers=text_of(sent).headers)


@pytest.mark.parametrize("after_ms", [5000, 5001, 10**12])
def test_what_has_expired_is_not_sent(after_ms):
    """However long ago that was."""
    own = kept(Encoded.of(BasicProperties(expiration="5000")), True, 1_000_000)
    with pytest.raises(ExpiredError, match="5000 ms, is over"):
        sendable(own, 1_000_000 + after_ms)


@pytest.mark.parametrize("text", ["", "9" * 5000, "-1", "soon", "٣"])
def test_a_strangers_time_lengthens_no_life(text):
    """Nor does one that is no number stop anybody."""
    own = Encoded.of(BasicProperties(expiration="5000", headers={"shield-expires-at": text}))
    assert text_of(sendable(own, 0)[0]).expiration == "5000"
