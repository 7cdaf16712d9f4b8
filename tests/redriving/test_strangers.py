"""Redrive runs as its operator and reads what strangers wrote: they choose very little."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace

import pytest

from shield import Envelope, Shield, redrive
from shield.config.credentials import with_credentials
from shield.config.redrive_allow import AllowedDestination, RedriveAllow
from shield.config.settings import read_settings
from shield.errors import SettingsError
from shield.headers import DESTINATION, MESSAGE_ID
from shield.signing import Signer
from shield.url import URL
from tests.contracts.strangers import ELSEWHERE, UNREADABLE, forged
from tests.making import shield_with
from tests.memory import Broker, Memory, Plugin, diverted

OVERFLOW = "memory://b/overflow"
RULE = {"name": "orders", "match": "orders*"}
KEY = "a signing key of some length"


@pytest.fixture(autouse=True)
def brokers(monkeypatch):
    """Fresh ones for each test."""
    fresh = defaultdict(Broker)
    monkeypatch.setattr(Memory, "brokers", fresh)
    return fresh


@pytest.fixture
def fill(brokers):
    """Put messages into the overflow place."""

    def put(*envelopes):
        brokers["b"].places["overflow"] += envelopes

    return put


def shield_of(*rules, **settings):
    return shield_with(*(rules or (RULE,)), plugins=[Plugin()], **settings)


def stranger(words):
    marks = forged("orders", words)
    return Envelope("overflow", b"stranger", "kafka", marks=tuple(marks.items()))


@pytest.mark.parametrize("words", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_fails_alone_and_is_named(brokers, fill, words):
    """Its neighbours are back; it stays where it is, also with the next run."""
    fill(diverted(0), stranger(words), diverted(1))
    shield = shield_of()
    done = redrive(OVERFLOW, shield=shield)
    assert (done.sent, done.failed, done.refused, done.unknown) == (2, 1, 0, 0)
    (left,) = done.listed
    assert next(iter(words)) in left.why
    assert len(left.why) < 300
    assert [one.body for one in brokers["b"].places["orders.created"]] == [b"0", b"1"]
    assert [one.body for one in brokers["b"].places["overflow"]] == [b"stranger"]
    assert shield.ledger().balanced


@pytest.mark.parametrize("words", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_parked_with_all_it_brought(brokers, fill, words):
    """Where there is a parking destination; on the broker that was read, whatever it names."""
    fill(stranger(words), diverted(1))
    done = redrive(OVERFLOW, park="parked", shield=shield_of())
    assert (done.sent, done.parked, done.failed) == (1, 1, 0)
    (parked,) = brokers["b"].places["parked"]
    assert dict(parked.marks) == forged("orders", words)


@pytest.mark.parametrize("words", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_headers_say_of_elsewhere_is_refused_and_what_would_allow_it_is_said(
    brokers, fill, words, dry_run
):
    """It stays; a dry run says the same; nothing is written to a file, and no broker is opened."""
    fill(diverted(0), stranger(words), diverted(1))
    done = redrive(OVERFLOW, dry_run=dry_run, shield=shield_of())
    assert (done.sent, done.refused, done.failed) == (0 if dry_run else 2, 1, 0)
    assert not done.complete
    (left,) = done.listed
    assert "--allow" in left.why
    assert set(brokers) == {"b"}
    assert not os.path.exists("/tmp/shield-stranger")


def test_original_said_outright_allows_what_no_rule_covers_on_the_same_broker_only(brokers, fill):
    """Another broker needs more than that."""
    fill(stranger({DESTINATION: "payments"}), stranger(ELSEWHERE["another broker"]))
    done = redrive(OVERFLOW, to="original", shield=shield_of())
    assert (done.sent, done.refused) == (1, 1)
    assert len(brokers["b"].places["payments"]) == 1


@pytest.mark.parametrize(
    ("allow", "sent"),
    [
        ("memory://a", 1),
        ("memory://a/*", 1),
        ("memory://a/orders*", 1),
        ("memory://a/payments", 0),
        ("memory://a.evil", 0),
        ("memory://a:1", 0),
        ("orders*", 0),
        ("*", 0),
    ],
)
@pytest.mark.parametrize("way", ["argument", "settings"])
def test_another_broker_needs_a_word_for_exactly_that_one(brokers, fill, allow, sent, way):
    """`--allow` or the settings name it, with all or some of its destinations."""
    fill(diverted(0, broker="memory://a"))
    if way == "argument":
        done = redrive(OVERFLOW, allow=[allow], shield=shield_of())
    else:
        done = redrive(OVERFLOW, shield=shield_of(redrive_allow=[allow]))
    assert (done.sent, done.refused) == (sent, 1 - sent)
    assert len(brokers["a"].places["orders.created"]) == sent


@pytest.mark.parametrize(
    "allow", ["", "memory://user:secret-canary@a", "memory://a?password=canary", "nothing://a"]
)
def test_a_wrong_word_is_refused_and_not_shown(brokers, fill, allow):
    """At once, before anything is read."""
    fill(diverted(0))
    with pytest.raises(SettingsError, match="allow") as raised:
        redrive(OVERFLOW, allow=[allow], shield=shield_of())
    assert "canary" not in str(raised.value)
    assert len(brokers["b"].places["overflow"]) == 1


def test_no_message_goes_where_it_is_read_from(brokers, fill):
    """It would be read again and again, also where a rule covers all."""
    fill(stranger({DESTINATION: "overflow"}), diverted(1))
    done = redrive(OVERFLOW, shield=shield_of({"name": "all", "match": "*"}))
    assert (done.sent, done.refused) == (1, 1)


def test_a_rules_exceptions_are_not_covered(fill):
    """`except` takes them out of what headers may choose, too."""
    fill(stranger({DESTINATION: "orders.secret"}))
    done = redrive(OVERFLOW, shield=shield_of(RULE | {"except": "*.secret"}))
    assert done.refused == 1


# --- signed ---


def signed(body, key=KEY, **fields):
    envelope = Envelope("orders", body, "kafka", **fields)
    marks = {DESTINATION: "orders", MESSAGE_ID: "id", "shield-rule": "orders"}
    return replace(envelope.diverted(marks, Signer([key.encode()])), destination="overflow")


def test_with_a_key_only_what_it_has_signed_goes_back(brokers, fill):
    """What is not signed, or for another message, says nothing of where it was going."""
    moved = replace(signed(b"signed"), body=b"moved")
    fill(diverted(0), signed(b"signed"), signed(b"other key", "x" * 16), moved)
    done = redrive(OVERFLOW, shield=shield_of(signing_key=KEY))
    assert (done.sent, done.unknown) == (1, 3)
    (back,) = brokers["b"].places["orders"]
    assert back.body == b"signed"
    assert dict(back.marks) == {MESSAGE_ID: "id"}


def test_the_same_is_said_each_time(fill):
    """What stays for want of a signature is counted by the next run as well."""
    fill(diverted(0), signed(b"signed"))
    shield = shield_of(signing_key=KEY)
    assert redrive(OVERFLOW, shield=shield).unknown == 1
    assert redrive(OVERFLOW, shield=shield).unknown == 1


def test_a_signature_is_no_word_for_another_broker(brokers, fill):
    """It says who wrote the headers, not that the operator wants to send there."""
    envelope = Envelope("orders", b"x", "kafka")
    marks = {DESTINATION: "orders", "shield-original-broker": "memory://a"}
    fill(envelope.diverted(marks, Signer([KEY.encode()])))
    assert redrive(OVERFLOW, shield=shield_of(signing_key=KEY)).refused == 1
    assert not brokers["a"].places["orders"]


def test_keys_are_exchanged_one_by_one(fill):
    """The first signs, and all vouch."""
    fill(signed(b"old", KEY), signed(b"new", "another key of some length"))
    keys = ["another key of some length", KEY]
    assert redrive(OVERFLOW, shield=shield_of(signing_key=keys)).sent == 2


@pytest.mark.parametrize("found", ["short", "", [], ["short"], 7])
def test_a_key_that_is_none_is_refused_and_not_shown(found):
    """Too short a one, an empty list, a number."""
    with pytest.raises(SettingsError, match="signing_key") as raised:
        read_settings({"shield": {"signing_key": found}})
    assert "short'" not in str(raised.value)


@pytest.mark.parametrize("text", [KEY, '["a signing key of some length", "one more, as long"]'])
def test_a_key_comes_from_the_environment_too(monkeypatch, text):
    """As it is, or as a list in JSON."""
    monkeypatch.setenv("SHIELD_SIGNING_KEY", text)
    signer = Shield({}).engine.signer
    assert signer is not None
    assert signer.vouches(signed(b"x"))


# --- nothing expanded, nothing spent ---


@pytest.mark.parametrize(
    "text",
    [
        "kafka://known:9092,stranger:9092",
        "kafka://stranger:9092",
        "kafka://known:9093",
        "amqp://known:9092",
        "kafka://known.stranger:9092",
    ],
)
def test_a_password_is_for_its_own_hosts_alone(text):
    """Of a list of hosts all have to be the section's; scheme and port count."""
    section = {"url": "kafka://known:9092", "username": "u", "password": "secret"}
    settings = read_settings({"credentials": {"known": section}})
    assert with_credentials(URL.parse(text), settings.credentials).password is None
    own = with_credentials(URL.parse("kafka://known:9092/orders"), settings.credentials)
    assert own.password == "secret"


def test_entries_of_rabbitmq_name_a_virtual_host():
    """What stands behind it is a glob on destinations."""

    def home_of(url):
        return replace(url, path=url.path.partition("/")[0])

    def why_not(entry, broker):
        allowance = RedriveAllow((), [entry], home=None, home_of=home_of)
        marks = {DESTINATION: "orders/created", "shield-original-broker": broker}
        envelope = Envelope("overflow", b"", "amqp", marks=tuple(marks.items()))
        return allowance.why_not(replace(envelope.restored(), routing_key="created"))

    assert AllowedDestination.of("amqp://h/v/orders*", home_of).glob == "orders*"
    assert why_not("amqp://h:5672/v/orders*", "amqp://h:5672/v") is None
    assert why_not("amqp://h/v", "amqp://h:5672/v") is None
    assert why_not("amqp://h//orders*", "amqp://h:5672/") is None
    assert why_not("amqp://h", "amqp://h:5672/") is None
    assert why_not("amqp://h", "amqp://h:5672/v")
    assert why_not("amqp://h/v/payments*", "amqp://h:5672/v")
    assert why_not("amqp://h/v", "amqp://h:5672/vv")


def test_a_shield_that_was_made_without_any_rule_asks_none(brokers, fill):
    """Who calls it so in a program has said where all may go; a file without rules says nothing."""
    fill(diverted(0), diverted(1))
    own = Shield({}, plugins=[Plugin()])
    done = redrive(OVERFLOW, shield=own)
    assert (done.sent, done.refused) == (2, 0)
    fill(diverted(2))
    done = redrive(OVERFLOW, shield=shield_of({"name": "other", "match": "other"}))
    assert (done.sent, done.refused) == (0, 1)
