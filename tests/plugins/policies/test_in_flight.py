"""The policy `in_flight`: a bound on what the broker has not answered."""

from __future__ import annotations

import pytest

from shield import Outcome
from shield.testing import PolicyContract
from tests.making import admits, over, permit, shield_with


class TestMessages(PolicyContract):
    name = "in_flight"
    settings = {"messages": 7}


class TestBytes(PolicyContract):
    name = "in_flight"
    settings = {"bytes": "1KiB"}


def bound(**table):
    return {"match": "*", "in_flight": table}


@pytest.mark.parametrize("outcome", Outcome)
def test_a_place_is_free_again_when_the_broker_has_answered(outcome):
    """Whatever the answer; until then the bound holds."""
    shield = shield_with(bound(messages=2))
    first, _ = permit(shield), permit(shield)
    assert over(shield).reason == "messages"
    first.settle(outcome)
    assert admits(shield)
    assert not admits(shield)


def test_a_send_that_never_began_holds_no_place():
    """Cancelling frees it."""
    shield = shield_with(bound(messages=1))
    permit(shield).cancel()
    assert admits(shield)


def test_a_clients_callback_frees_the_place():
    """`delivered` is enough, called by the client with whatever it has."""
    shield = shield_with(bound(messages=1))
    permit(shield).delivered("metadata")
    assert admits(shield)


def test_bytes_are_bounded_as_well():
    """The bound that is reached first refuses."""
    shield = shield_with(bound(messages=10, bytes="1KiB"))
    first = permit(shield, size=1000)
    assert over(shield, size=100).reason == "bytes"
    assert admits(shield, size=24)
    first.delivered()
    assert admits(shield, size=1000)


def test_a_message_larger_than_all_bytes_passes_alone():
    """It is never refused for ever: while nothing is in flight it goes."""
    shield = shield_with(bound(bytes=100))
    large = permit(shield, size=5000)
    assert not admits(shield, size=1)
    large.delivered()
    assert admits(shield, size=5000)


def test_one_bound_holds_for_all_that_the_rule_covers():
    """It is the rule's, not the producer's or the destination's."""
    shield = shield_with(bound(messages=2))
    assert admits(shield, "a", producer="p")
    assert admits(shield, "b", producer="q")
    assert not admits(shield, "c", producer="r")


def test_nobody_knows_when_an_answer_comes():
    """A refusal has no time, unlike a quota's."""
    shield = shield_with(bound(messages=1))
    permit(shield)
    assert over(shield).retry_after_s is None
