"""Messages that are told by their size alone: decided on as all others, settled many at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import Outcome, Policy, hookimpl
from shield.errors import Reject
from tests.making import Kinds, admits, counts, over, shield_with

BOUND = {"name": "bound", "match": "*", "in_flight": {"messages": 5, "bytes": 1000}}
QUOTA = {"name": "quota", "match": "*", "quota": {"rate": "10/s", "burst": 5}}


def plain(shield):
    flow = shield.engine.plain_flow("orders", "p")
    assert flow is not None
    return flow


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_they_are_admitted_as_other_messages_are(sizes):
    """By the same bounds and quotas, whichever way each is offered."""
    one, other = shield_with(BOUND, QUOTA), shield_with(BOUND, QUOTA)
    flow = plain(one)
    for size in sizes:
        assert one.engine.admit_plain(flow, size) is admits(other, "orders", size)


def test_what_is_refused_is_not_counted():
    """It is offered once more, the way that finds out why."""
    shield = shield_with(QUOTA)
    flow = plain(shield)
    assert [shield.engine.admit_plain(flow, 10) for _ in range(6)] == [True] * 5 + [False]
    assert counts(shield.ledger()) == {"offered": 5, "in_flight": 5}
    assert over(shield).reason == "10/s per producer"


@pytest.mark.parametrize(
    ("outcome", "end"), [(Outcome.DELIVERED, "delivered"), (Outcome.FAILED, "failed")]
)
def test_many_are_settled_at_once(outcome, end):
    """And make room for as many."""
    shield = shield_with(BOUND)
    flow = plain(shield)
    assert all(shield.engine.admit_plain(flow, 200) for _ in range(5))
    assert not shield.engine.admit_plain(flow, 1)
    flow.run(4, 800).settle(outcome)
    assert counts(shield.ledger()) == {"offered": 5, end: 4, "in_flight": 1}
    assert [shield.engine.admit_plain(flow, 200) for _ in range(5)] == [True] * 4 + [False]


def test_one_whose_send_never_began_gets_its_charge_back():
    """As with a Permit."""
    shield = shield_with(QUOTA)
    flow = plain(shield)
    for _ in range(20):
        assert shield.engine.admit_plain(flow, 10)
        flow.run(1, 10).cancel()
    assert counts(shield.ledger()) == {"offered": 20, "failed": 20}


class Labels:
    """Plugins that look at each message."""

    @hookimpl
    def shield_before_publish(self, message):
        raise Reject("seen")


class Hears:
    @hookimpl
    def shield_after_publish(self, message, outcome):
        pass


class Sees(Policy):
    """A policy that says nothing of runs."""

    def check(self, message, now):
        return None


@pytest.mark.parametrize(
    ("rules", "plugins"),
    [
        ([{"match": "*", "quota": {"rate": "5/s", "per": "key"}}], []),
        ([{"match": "*", "in_flight": {"messages": 5}, "shed": "priority"}], []),
        ([{"match": "*", "adaptive": {}}], []),
        ([{"match": "*", "sees": {}}], [Kinds({"sees": Sees})]),
        ([], [Labels()]),
        ([], [Hears()]),
    ],
    ids=["per key", "shed", "adaptive", "third party's", "before-hook", "after-hook"],
)
def test_what_must_be_seen_one_by_one_is_not_plain(rules, plugins):
    """The client then offers each as a message."""
    assert shield_with(*rules, plugins=plugins).engine.plain_flow("orders", "p") is None


def test_where_somebody_waits_in_line_nobody_passes_by():
    """Who comes later is offered the way that stands behind them."""
    shield = shield_with({"match": "*", "in_flight": {"messages": 1}})
    flow = plain(shield)
    assert shield.engine.admit_plain(flow, 1)
    waiter = shield.engine.line_up(over(shield), lambda: None)
    flow.run(1, 1).delivered()
    assert not shield.engine.admit_plain(flow, 1)
    shield.engine.leave(waiter)
    assert shield.engine.admit_plain(flow, 1)


def test_pressure_is_that_on_the_last_of_them():
    """They count as offered."""
    shield = shield_with(BOUND)
    flow = plain(shield)
    for _ in range(4):
        shield.engine.admit_plain(flow, 1)
    assert shield.pressure("bound") == pytest.approx(0.8)
