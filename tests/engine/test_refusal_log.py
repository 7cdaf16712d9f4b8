"""What the log says of rules that refuse: when that begins, each minute, and when it has ended."""

from __future__ import annotations

import logging

import pytest

import shield
from shield import Message, Permit, hookimpl
from shield.engine.reporting.refusal_log import CALM_S, EVERY_S, MOST_KEYS
from shield.testing import FakeClient
from tests.making import shield_with

ONE = {"rate": "1/h", "burst": 1}


@pytest.fixture
def told(caplog):
    """The lines so far."""
    caplog.set_level(logging.WARNING, "shield.refusals")
    return lambda: [record.getMessage() for record in caplog.records]


def refusing(*chain: str) -> FakeClient:
    rule = {"name": "orders", "match": "orders*", "quota": ONE, "over_limit": list(chain)}
    return FakeClient(shield_with(rule))


def test_the_first_refusal_is_told_and_no_other_of_its_kind(told):
    """With the rule, the policy, its reason, and whose message that was."""
    client = refusing("drop")
    for _ in range(100):
        client.publish("orders.created", b"x")
    assert told() == [
        "rule 'orders' begins to refuse: quota (1/h per producer); first 'fake' to 'orders.created'"
    ]


def test_its_end_is_told_with_what_became_of_them(told):
    """By whoever comes next; how many, for how long, by which policies, and where they went."""
    client = refusing({"overflow": {"destination": "late", "messages": 2}}, "drop")
    for _ in range(4):
        client.publish("orders", b"x")
    client.ack()
    client.shield.clock.advance(CALM_S + 1)
    client.publish("other", b"x")
    begun, ended = told()
    assert begun.startswith("rule 'orders' begins to refuse")
    assert ended == (
        "rule 'orders' has ended refusing: 3 in 0.0 s; by quota (1/h per producer) 3; "
        "producers fake 3; then overflowed 2, dropped 1"
    )


def test_while_it_goes_on_there_is_a_line_a_minute(told):
    """However many it refuses."""
    client = refusing("drop")
    for _ in range(int(3 * EVERY_S)):
        client.publish("orders", b"x")
        client.shield.clock.advance(1.0)
    lines = told()
    assert [" ".join(line.split()[2:4]) for line in lines] == [
        "begins to",
        "goes on",
        "goes on",
    ]
    assert lines[1].startswith("rule 'orders' goes on refusing: 61 in 60.0 s; ")


def test_a_rule_that_begins_again_is_told_again(told):
    """Each time it was calm in between."""
    client = refusing("drop")
    client.publish("orders", b"x")
    for _ in range(3):
        client.publish("orders", b"x")
        client.shield.clock.advance(CALM_S)
        client.shield.ledger()
    assert [" ".join(line.split()[2:4]) for line in told()] == ["begins to", "has ended"] * 3


def test_what_refuses_still_is_told_when_its_client_closes(told):
    """A program may end in the middle of it."""
    client = refusing("drop")
    for _ in range(3):
        client.publish("orders", b"x")
    client.close()
    assert told()[-1].startswith("rule 'orders' refused until its client closed: 2 in 0.0 s; ")


def test_a_rule_in_shadow_refuses_nothing(told):
    """It is counted, not told."""
    rule = {"match": "*", "quota": ONE, "mode": "shadow"}
    client = FakeClient(shield_with(rule))
    for _ in range(3):
        client.publish("orders", b"x")
    assert told() == []


def test_tenants_are_told_and_how_many_are_told_apart_is_bounded(told):
    """Beyond that they are others."""

    class Tenants:
        number = 0

        @hookimpl
        def shield_classify(self, message: Message) -> shield.Labels:
            Tenants.number += 1
            return shield.Labels(tenant=f"tenant-{min(Tenants.number, 9_000) % 5000}")

    own = shield_with({"name": "orders", "match": "*", "quota": ONE}, plugins=[Tenants()])
    for number in range(MOST_KEYS + 500):
        verdict = own.admit(Message("orders", 1, "fake"))
        assert isinstance(verdict, Permit) == (number == 0)
        if number:
            verdict.end(shield.End.DROPPED)
    own.clock.advance(CALM_S)
    own.ledger()
    assert "tenants tenant-" in told()[-1]
    assert f"producers fake {MOST_KEYS:,}, (others) 499" in told()[-1]


def test_the_fields_are_there_for_who_reads_them_by_program(caplog):
    """As `extra`, under one name."""
    caplog.set_level(logging.WARNING, "shield.refusals")
    client = refusing("drop")
    for _ in range(3):
        client.publish("orders", b"x")
    client.close()
    begun, ended = (record.shield for record in caplog.records)
    assert begun["rule"] == ended["rule"] == "orders"
    assert (begun["policy"], begun["producer"]) == ("quota", "fake")
    assert (ended["refused"], ended["then"]) == (2, {"dropped": 2})


def test_a_log_that_fails_harms_no_message(caplog):
    """A handler is somebody's code."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no luck")

    handler = Failing()
    logging.getLogger("shield").addHandler(handler)
    try:
        client = refusing("drop")
        assert [shield.fate(client.publish("orders", b"x")) for _ in range(2)] == [
            "sent",
            "dropped",
        ]
        client.close()
    finally:
        logging.getLogger("shield").removeHandler(handler)
    assert client.shield.ledger().balanced
