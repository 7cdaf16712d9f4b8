"""Deliveries that wait to be handed over for longer than a rule allows."""

from __future__ import annotations

import pytest

from shield import Delivery, OverLimit, Permit, Refusal, Shield
from shield.action import Divert, Drop
from shield.chain.deferred import ANEW_S, DeferredDelivery
from tests.making import counts, shield_with

LATE = {"target": "1s", "interval": "2s", "longest": "3s"}
TOO_LONG_S = 10.0
ONE_AN_HOUR = {"rate": "1/h", "burst": 1}
PACE = {"name": "pace", "match": "*", "direction": "consume", "quota": ONE_AN_HOUR}


def rule(**more):
    return {"name": "in", "match": "*", "direction": "consume", "queue_delay": LATE, **more}


def delivery() -> Delivery:
    return Delivery("orders", 10, "c")


def late(shield: Shield) -> Refusal:
    """What is said of one that has waited too long."""
    standing = shield.engine.standing("orders", "c")
    assert standing is not None
    refusal = standing.refusal(delivery(), TOO_LONG_S, shield.clock.now())
    assert refusal is not None
    return refusal


def test_only_where_a_rule_says_so_anybody_asks():
    """About that place, that consumer and that direction."""
    shield = shield_with(rule(match="a*", producers="c", over_limit="drop"))
    assert shield.engine.standing("abc", "c") is not None
    assert shield.engine.standing("b", "c") is None
    assert shield.engine.standing("abc", "d") is None
    assert not shield.engine.takes_runs(Delivery("abc", 0, "c"))
    publish = shield_with({"match": "*", "queue_delay": {}})
    assert publish.engine.standing("abc", "c") is None


def test_each_queue_stands_for_itself():
    """Two partitions, or two consumers, of one name."""
    shield = shield_with(rule(over_limit="drop"))
    one, other = shield.engine.standing("orders", "c"), shield.engine.standing("orders", "c")
    now = shield.clock.now()
    assert one.refusal(delivery(), TOO_LONG_S, now) is not None
    assert other.refusal(delivery(), 0.0, now) is None
    assert one.newest_first(delivery(), now)
    assert not other.newest_first(delivery(), now)
    assert shield.status()["in"]["queue_delay"]["overloaded"] == 1


def test_one_that_would_be_admitted_is_refused_where_it_has_waited_too_long():
    """And charged nothing."""
    shield = shield_with(rule(quota=ONE_AN_HOUR, over_limit="drop"))
    standing = shield.engine.standing("orders", "c")
    over = standing.offer(delivery(), late(shield), shield.clock.now())
    assert isinstance(over, OverLimit)
    assert isinstance(DeferredDelivery(over).next(shield.clock.now()), Drop)
    assert isinstance(standing.offer(delivery(), None, shield.clock.now()), Permit)
    assert counts(shield.ledger()) == {"offered": 2, "dropped": 1, "in_flight": 1}
    assert shield.ledger().drops == {("in", "queue_delay", "queue delay"): 1}


@pytest.mark.parametrize("asked", [False, True])
def test_one_that_a_quota_holds_back_goes_its_chains_other_way(asked):
    """`wait` is for the quota; also where it was waiting for that already."""
    shield = shield_with(rule(quota=ONE_AN_HOUR, over_limit=["wait", "overflow late"]))
    standing, now = shield.engine.standing("orders", "c"), shield.clock.now()
    shield.engine.receive(delivery())
    if asked:
        held = DeferredDelivery(standing.offer(delivery(), None, now))
        assert held.next(now) == pytest.approx(3600.0, rel=0.01)
        assert held.refuse(late(shield), now)
    else:
        held = DeferredDelivery(standing.offer(delivery(), late(shield), now))
    assert isinstance(held.next(now), Divert)
    held.diverted()
    assert counts(shield.ledger()) == {"offered": 2, "in_flight": 1, "overflowed": 1}


def test_the_chain_is_that_of_the_rule_that_bounds_the_wait():
    """The quota's own rule has none: without the other it would wait for ever."""
    shield = shield_with(PACE, rule(over_limit="drop"))
    shield.engine.receive(delivery())
    held = DeferredDelivery(shield.engine.receive(delivery()))
    assert isinstance(held.next(shield.clock.now()), float)
    assert held.refuse(late(shield), shield.clock.now())
    assert isinstance(held.next(shield.clock.now()), Drop)


@pytest.mark.parametrize("looks", [1, 5])
def test_where_it_cannot_be_sent_elsewhere_it_is_tried_again_after_a_second(looks):
    """However often its consumer looks meanwhile; handed over instead, if it is admitted."""
    shield = shield_with(PACE, rule(over_limit="overflow late"))
    shield.engine.receive(delivery())
    held = DeferredDelivery(shield.engine.receive(delivery()))
    refusal = late(shield)
    assert held.refuse(refusal, shield.clock.now())
    for _ in range(3):
        step = held.next(shield.clock.now())
        assert isinstance(step, Divert)
        step.done()
        held.failed()
        for _ in range(looks):
            assert not held.refuse(refusal, shield.clock.now())
            assert isinstance(held.next(shield.clock.now()), float)
            shield.clock.advance(ANEW_S / looks - 0.001)
        shield.clock.advance(0.1)
        assert held.refuse(refusal, shield.clock.now())


def test_a_failed_send_goes_on_in_its_chain_however_often_it_is_refused():
    """It is not begun anew before its end."""
    shield = shield_with(rule(over_limit=["overflow late", "drop"]))
    standing, now = shield.engine.standing("orders", "c"), shield.clock.now()
    refusal = late(shield)
    held = DeferredDelivery(standing.offer(delivery(), refusal, now))
    step = held.next(now)
    assert isinstance(step, Divert)
    step.done()
    held.failed()
    assert held.refuse(refusal, now)
    assert isinstance(held.next(now), Drop)


def test_a_rule_in_shadow_counts_what_leaves_too_late():
    """And refuses nothing."""
    shield = shield_with(rule(mode="shadow", over_limit="drop"))
    standing = shield.engine.standing("orders", "c")
    for _ in range(3):
        now = shield.clock.now()
        assert standing.refusal(delivery(), TOO_LONG_S, now) is None
        verdict = standing.offer(delivery(), None, now)
        standing.leaves(verdict, TOO_LONG_S, now)
        verdict.delivered()
        shield.clock.advance(1.0)
    assert shield.ledger().over_limit == {("in", "queue_delay", "queue delay"): 3}
    assert counts(shield.ledger()) == {"offered": 3, "delivered": 3}
