"""Every built-in action keeps the promises of actions."""

from __future__ import annotations

import pickle

import pytest

import shield
from shield.testing import ActionContract, FakeClient
from tests.making import counts, shield_with

ONE = {"rate": "1/h", "burst": 1}


class TestDrop(ActionContract):
    link = "drop"


class TestRaise(ActionContract):
    link = "raise"


class TestWait(ActionContract):
    link = "wait 2h"


class TestShortWait(ActionContract):
    link = {"wait": {"limit": "5ms"}}


class TestRetry(ActionContract):
    link = "retry 3"


class TestBuffer(ActionContract):
    link = "buffer"


class TestSmallBuffer(ActionContract):
    link = {"buffer": {"messages": 2, "bytes": "1KiB"}}


class TestOverflow(ActionContract):
    link = "overflow elsewhere"


class TestBoundedOverflow(ActionContract):
    link = {"overflow": {"destination": "elsewhere", "messages": 2, "bytes": "1KiB"}}


def client_with(*chain):
    return FakeClient(
        shield_with({"match": "*", "quota": ONE, "over_limit": list(chain) or ["raise"]})
    )


def test_overflow_declines_when_too_much_of_it_is_unanswered():
    """Its sends are bounded by themselves; each answer makes room for one."""
    client = client_with({"overflow": {"destination": "elsewhere", "messages": 2}}, "drop")
    client.publish("orders", b"1")
    fates = [shield.fate(client.publish("orders", b"x")) for _ in range(4)]
    assert fates == ["overflowed", "overflowed", "dropped", "dropped"]
    client.ack()
    assert shield.fate(client.publish("orders", b"x")) == "overflowed"


@pytest.mark.parametrize("answer", [FakeClient.ack, FakeClient.fail])
def test_overflow_is_bounded_in_bytes(answer):
    """Whatever the answer, its bytes are free again; a large one alone passes."""
    client = client_with({"overflow": {"destination": "elsewhere", "bytes": 100}}, "drop")
    client.publish("orders", b"1")
    for _ in range(3):
        assert shield.fate(client.publish("orders", b"x" * 500)) == "overflowed"
        assert shield.fate(client.publish("orders", b"x")) == "dropped"
        answer(client)


def test_a_failed_overflow_goes_on_to_the_next_one():
    """The chain is run to its end, each action once, and the future ends as the last says."""
    client = client_with("overflow first", "overflow second", "drop")
    client.publish("orders", b"1")
    client.ack()
    future = client.publish("orders", b"2")
    client.fail()
    assert [record.destination for record in client.unanswered] == ["second"]
    assert not future.done()
    client.fail()
    assert future.result(0) is None
    assert shield.fate(future) == "dropped"
    assert counts(client.shield.ledger()) == {"offered": 2, "delivered": 1, "dropped": 1}


def test_where_answers_are_handled_nobody_waits():
    """A `wait` behind a failed overflow declines on the thread that answers sends."""
    client = client_with("overflow elsewhere", "wait 2h", "drop")
    client.publish("orders", b"1")
    client.ack()
    future = client.publish("orders", b"2")
    client.fail()
    assert shield.fate(future) == "dropped"
    assert client.shield.clock.waits == 0


def test_an_overflow_that_cannot_begin_declines():
    """A destination that is not there is no loss: the chain goes on at once."""
    client = client_with("overflow elsewhere", "drop")
    client.missing.add("elsewhere")
    client.publish("orders", b"1")
    assert shield.fate(client.publish("orders", b"2")) == "dropped"


def test_an_error_says_which_actions_were_tried_and_why_each_did_nothing():
    """Not the quota alone: what else was to help, and did not."""
    chain = [
        "wait 5ms",
        {"buffer": {"messages": 1}},
        {"overflow": {"destination": "late", "messages": 1}},
        "overflow missing",
        "raise",
    ]
    client = client_with(*chain)
    client.missing.add("missing")
    for _ in range(3):
        client.publish("orders", b"x")
    with pytest.raises(shield.OverLimitError) as caught:
        client.publish("orders", b"x")
    assert dict(caught.value.tried) == {
        "wait": "not admitted within 0.005 s, or may not wait here",
        "buffer": "full",
        "overflow late": "its own bound on unanswered messages is reached",
        "overflow missing": "not there now",
    }
    assert "; overflow late: its own bound on unanswered messages is reached; " in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).tried == caught.value.tried


def test_an_error_says_what_an_overflow_send_failed_with():
    """Also where its caller has had a future since long."""
    client = client_with("overflow late")
    client.publish("orders", b"1")
    client.ack()
    future = client.publish("orders", b"2")
    client.fail(TimeoutError("the broker is away"))
    assert future.exception(0).tried == (
        ("overflow late", "failed: TimeoutError('the broker is away')"),
    )
