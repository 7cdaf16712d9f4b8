"""Deliveries under rules: whose rules they are, runs, and what a consumer does over the limit."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import Delivery, Outcome, OverLimit, Permit, Policy, SettingsError, Traits, hookimpl
from shield.action import Divert, Drop
from shield.capabilities import BoundsInFlight
from shield.chain.deferred import ANEW_S, DeferredDelivery
from shield.errors import Reject
from tests.making import Kinds, counts, permit, shield_with

QUOTA = {"rate": "10/s", "burst": 10}
NOW_S = 1_700_000_000.0


def rule(**more):
    return {"name": "in", "match": "*", "direction": "consume", **more}


def delivery(destination="orders", size=100, **more):
    return Delivery(destination, size, "c", **more)


def held(shield, **more) -> DeferredDelivery:
    """Offer a delivery that must be over the limit."""
    verdict = shield.engine.receive(delivery(**more))
    assert isinstance(verdict, OverLimit), verdict
    return DeferredDelivery(verdict)


def use_up(shield):
    run = shield.engine.receive_run(delivery(messages=10))
    assert run is not None
    return run


# --- whose rules ------------------------------------------------------------------------------


def test_rules_of_one_direction_do_not_apply_to_the_other():
    """A quota on what is received leaves what is sent alone, and the other way round."""
    shield = shield_with(rule(quota={"rate": "1/h", "burst": 1}), {"match": "*", "quota": "1/h"})
    assert isinstance(shield.engine.receive(delivery()), Permit)
    assert isinstance(shield.engine.receive(delivery()), OverLimit)
    permit(shield)


def test_the_ledger_counts_deliveries():
    """Handed over is in flight; acknowledged is delivered; what went back has failed."""
    shield = shield_with(rule(in_flight={"messages": 10}))
    first, second = shield.engine.receive(delivery()), shield.engine.receive(delivery())
    assert counts(shield.ledger()) == {"offered": 2, "in_flight": 2}
    first.settle(Outcome.DELIVERED)
    second.settle(Outcome.FAILED)
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 1, "failed": 1}


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"backlog": {"limit": 5}}, "rules[0].backlog: found 'backlog' in a rule with direction"),
        ({"over_limit": "raise"}, "rules[0].over_limit[0]: found 'raise' in a rule with direction"),
        ({"max_age": "5s"}, "rules[0].max_age: what is too old stays so"),
        ({"over_limit": "overflow x", "redrive": "auto"}, "rules[0].redrive: found 'auto' with"),
    ],
)
def test_what_has_no_meaning_for_deliveries_is_refused(wrong, key):
    """At load, with the rule's key and what is allowed."""
    with pytest.raises(SettingsError) as error:
        shield_with(rule(**wrong))
    assert key in str(error.value)
    assert "allowed" in str(error.value)


def test_max_age_is_for_deliveries():
    """A rule about what is sent knows no age."""
    with pytest.raises(SettingsError, match=r"max_age: found 'max_age' in a rule with direction"):
        shield_with({"match": "*", "max_age": "5s", "over_limit": "drop"})


# --- runs -------------------------------------------------------------------------------------


def test_a_run_is_admitted_whole_or_not_at_all():
    """Refused, it is not even counted as offered: it can be cut and offered again."""
    shield = shield_with(rule(quota=QUOTA, in_flight={"messages": 100}))
    assert shield.engine.takes_runs(delivery())
    assert shield.engine.receive_run(delivery(messages=11)) is None
    assert counts(shield.ledger()) == {}
    run = shield.engine.receive_run(delivery(messages=10, size=1000))
    assert counts(shield.ledger()) == {"offered": 10, "in_flight": 10}
    run.settle(Outcome.DELIVERED)
    assert counts(shield.ledger()) == {"offered": 10, "delivered": 10}


@pytest.mark.parametrize("per", ["key", "header:tenant"])
def test_a_quota_that_tells_deliveries_apart_takes_no_runs(per):
    """Each has to be asked about by itself."""
    assert not shield_with(rule(quota={"rate": "5/s", "per": per})).engine.takes_runs(delivery())


def test_hooks_that_see_each_delivery_take_no_runs():
    """They are called for every one."""

    class Sees:
        @hookimpl
        def shield_before_consume(self, message):
            pass

    assert not shield_with(rule(), plugins=[Sees()]).engine.takes_runs(delivery())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_parts_of_a_run_hold_together_what_it_held(parts):
    """However it is split, bound and ledger come back to where they were."""
    total = sum(parts) + 1
    shield = shield_with(rule(in_flight={"messages": total, "bytes": total * 10}))
    run = shield.engine.receive_run(delivery(messages=total, size=total * 10))
    for done, messages in enumerate(parts, 1):
        part = shield.engine.split(run, messages, messages * 10)
        part.settle(Outcome.DELIVERED)
        assert shield.ledger().delivered == sum(parts[:done])
        assert shield.engine.receive_run(delivery(messages=total, size=total * 10)) is None
    run.settle(Outcome.FAILED)
    assert counts(shield.ledger()) == {"offered": total, "delivered": total - 1, "failed": 1}
    assert shield.engine.receive_run(delivery(messages=total, size=total * 10)) is not None


@given(st.lists(st.integers(1, 40), min_size=2, max_size=8))
def test_joined_runs_hold_together_what_each_held(runs):
    """As where one is never cut: what is acknowledged frees all of it."""
    total = sum(runs)
    shield = shield_with(rule(in_flight={"messages": total, "bytes": total * 10}))
    first, *others = (shield.engine.receive_run(delivery(messages=n, size=n * 10)) for n in runs)
    for other in others:
        shield.engine.join(first, other)
        assert not other.settle(Outcome.FAILED)
    first.settle(Outcome.DELIVERED)
    assert counts(shield.ledger()) == {"offered": total, "delivered": total}
    assert shield.engine.receive_run(delivery(messages=total, size=total * 10)) is not None


def test_what_was_acknowledged_makes_room_for_the_next():
    """Also where nobody has looked at the ledger in between."""
    shield = shield_with(rule(in_flight={"messages": 10}))
    for _ in range(3):
        use_up(shield).delivered()
    for _ in range(30):
        shield.engine.receive(delivery()).delivered()
    assert counts(shield.ledger()) == {"offered": 60, "delivered": 60}


def test_messages_of_a_run_are_delivered_one_by_one():
    """Each frees its place at once, however many are picked up together."""
    shield = shield_with(rule(in_flight={"messages": 5, "bytes": 500}))
    run = shield.engine.receive_run(delivery(messages=5, size=500))
    part = None
    for done in range(1, 6):
        part = shield.engine.part_delivered(run, part, 100)
        if done != 2:
            assert counts(shield.ledger()).get("in_flight", 0) == 5 - done
            assert counts(shield.ledger())["delivered"] == done
    assert shield.engine.receive_run(delivery(messages=5, size=500)) is not None


def test_a_policy_that_is_not_patient_hears_of_each_message_of_a_run():
    """When it is acknowledged, and not a little later."""

    class Hears(Policy):
        traits = Traits(batchable=True)
        heard: ClassVar[list[int]] = []

        def check(self, message, now):
            return None

        def release(self, message, outcome, now):
            self.heard.append(message.messages)

    shield = shield_with(rule(hears={}), plugins=[Kinds(policies={"hears": Hears})])
    run = shield.engine.receive_run(delivery(messages=3, size=30))
    part = shield.engine.part_delivered(run, None, 10)
    shield.engine.part_delivered(run, part, 10)
    assert Hears.heard == [1, 1]
    assert counts(shield.ledger()) == {"offered": 3, "delivered": 2, "in_flight": 1}


def test_messages_of_a_run_that_are_refused_leave_the_others():
    """Split off, one may fail while the rest is delivered."""
    shield = shield_with(rule(in_flight={"messages": 3}))
    run = shield.engine.receive_run(delivery(messages=3, size=30))
    part = shield.engine.part_delivered(run, None, 10)
    shield.engine.split(run, 1, 10).settle(Outcome.FAILED)
    shield.engine.part_delivered(run, part, 10)
    assert counts(shield.ledger()) == {"offered": 3, "delivered": 2, "failed": 1}


def test_the_rest_of_a_run_is_withdrawn_as_if_it_had_never_been_offered():
    """Its charges come back, too."""
    shield = shield_with(rule(quota=QUOTA, in_flight={"messages": 10}))
    run = shield.engine.receive_run(delivery(messages=10, size=1000))
    shield.engine.part_delivered(run, None, 100)
    shield.engine.withdraw(run)
    shield.engine.withdraw(run)
    assert counts(shield.ledger()) == {"offered": 1, "delivered": 1}
    assert shield.engine.receive_run(delivery(messages=9)) is not None
    assert shield.engine.receive_run(delivery(messages=1)) is None


# --- over the limit ---------------------------------------------------------------------------


def test_without_a_chain_a_delivery_waits_until_it_is_admitted():
    """However long that takes, and counted as in flight."""
    shield = shield_with(rule(quota=QUOTA))
    use_up(shield).settle(Outcome.DELIVERED)
    one = held(shield)
    assert one.next(shield.clock.now()) == pytest.approx(0.1, abs=0.01)
    assert counts(shield.ledger()) == {"offered": 11, "delivered": 10, "in_flight": 1}
    shield.clock.advance(0.2)
    assert isinstance(one.next(shield.clock.now()), Permit)


def test_wait_without_a_limit_declines_what_never_will_be_admitted():
    """So what is too old goes to the overflow, and what is only too much waits."""
    shield = shield_with(rule(quota=QUOTA, max_age="30s", over_limit=["wait", "overflow late"]))
    use_up(shield)
    assert held(shield, written_s=None).next(0.0) > 0
    old = held(shield, written_s=1.0)
    shield.clock.advance(1.0)
    assert isinstance(held(shield, written_s=1.0).next(shield.clock.now()), Divert)
    old.next(shield.clock.now())


def test_a_wait_with_a_limit_hands_on_afterwards():
    """To the next action of the chain."""
    shield = shield_with(rule(quota={"rate": "1/m", "burst": 1}, over_limit=["wait 90s", "drop"]))
    assert isinstance(shield.engine.receive(delivery()), Permit)
    shield.clock.advance(0.5)
    one = held(shield)
    assert one.next(shield.clock.now()) == pytest.approx(59.5)
    other = shield.engine.receive(delivery())
    shield.clock.advance(60.0)
    assert isinstance(DeferredDelivery(other).next(shield.clock.now()), float)
    assert isinstance(one.next(shield.clock.now()), Permit)


def test_a_drop_is_counted():
    """Its consumer skips it."""
    shield = shield_with(rule(quota=QUOTA, over_limit="drop"))
    use_up(shield).settle(Outcome.DELIVERED)
    assert isinstance(held(shield).next(0.0), Drop)
    assert counts(shield.ledger()) == {"offered": 11, "delivered": 10, "dropped": 1}
    assert shield.ledger().drops == {("in", "quota", "10/s per producer"): 1}


def test_a_diverted_delivery_is_overflowed_when_that_is_confirmed():
    """Until then it is in flight."""
    shield = shield_with(rule(quota=QUOTA, over_limit="overflow late"))
    use_up(shield).settle(Outcome.DELIVERED)
    one = held(shield)
    step = one.next(0.0)
    assert isinstance(step, Divert)
    assert counts(shield.ledger())["in_flight"] == 1
    step.done()
    one.diverted()
    assert counts(shield.ledger()) == {"offered": 11, "delivered": 10, "overflowed": 1}


def test_a_chain_that_runs_out_begins_anew():
    """After a pause: the broker still has the message."""
    shield = shield_with(rule(max_age="1s", over_limit="overflow late"))
    one = held(shield, written_s=1.0)
    step = one.next(shield.clock.now())
    step.done()
    one.failed()
    assert one.next(shield.clock.now()) == pytest.approx(ANEW_S)
    shield.clock.advance(ANEW_S + 0.1)
    assert isinstance(one.next(shield.clock.now()), Divert)


def test_a_chain_that_only_declines_says_so_with_a_number(caplog):
    """Once a minute: what stands still is never silent."""
    caplog.set_level("WARNING", "shield")
    shield = shield_with(rule(quota={"rate": "1/h", "burst": 1}, over_limit="wait 1s"))
    shield.engine.receive(delivery())
    one = held(shield)
    for _ in range(70):
        assert isinstance(one.next(shield.clock.now()), float)
        shield.clock.advance(1.1)
    said = [text for text in caplog.messages if "every action declines" in text]
    assert [("(1 so far)" in text) for text in said] == [True, False]
    assert all("orders" in text for text in said)


def test_one_that_no_place_will_ever_take_is_handed_over():
    """Where the chain has no more to say: it may neither be lost nor hold up those behind it."""
    shield = shield_with(rule(max_age="1s", over_limit="overflow late"))
    one = held(shield, written_s=1.0)
    assert isinstance(one.next(shield.clock.now()), Divert)
    one.failed(hopeless=True)
    permit = one.next(shield.clock.now())
    assert isinstance(permit, Permit)
    permit.delivered()
    assert counts(shield.ledger()) == {"offered": 1, "delivered": 1}


def test_one_that_one_place_does_not_take_goes_to_the_next():
    """Hopeless or not: the chain says where else."""
    shield = shield_with(rule(max_age="1s", over_limit=["overflow late", "drop"]))
    one = held(shield, written_s=1.0)
    assert isinstance(one.next(shield.clock.now()), Divert)
    one.failed(hopeless=True)
    assert isinstance(one.next(shield.clock.now()), Drop)
    assert counts(shield.ledger()) == {"offered": 1, "dropped": 1}


def test_what_grows_too_old_while_another_rule_holds_it_goes_the_way_of_the_rule_that_says_so():
    """It would wait for ever otherwise."""
    shield = shield_with(
        rule(name="pace", quota=QUOTA), rule(name="fresh", max_age="5s", over_limit="drop")
    )
    wall = [NOW_S]
    shield.rules[1].policies[0].wall = lambda: wall[0]
    use_up(shield).settle(Outcome.DELIVERED)
    one = held(shield, written_s=NOW_S)
    assert isinstance(one.next(shield.clock.now()), float)
    shield.clock.advance(10.0)
    wall[0] += 10.0
    assert isinstance(one.next(shield.clock.now()), Drop)
    assert shield.ledger().drops == {("fresh", "max_age", "older than 5 s"): 1}


def test_a_delivery_that_goes_back_to_its_broker_has_failed():
    """As where its partition is taken away while it waits."""
    shield = shield_with(rule(quota=QUOTA))
    use_up(shield).settle(Outcome.DELIVERED)
    held(shield).let_go()
    assert counts(shield.ledger()) == {"offered": 11, "delivered": 10, "failed": 1}


def test_a_consumer_that_pauses_goes_on_at_the_low_mark():
    """When the bound has emptied that far, and not for every acknowledgement."""
    shield = shield_with(rule(in_flight={"messages": 10}))
    handed = [shield.engine.receive(delivery()) for _ in range(10)]
    one = DeferredDelivery(shield.engine.receive(delivery()), low_mark=0.5)
    for permit_ in handed[:4]:
        permit_.settle(Outcome.DELIVERED)
        assert isinstance(one.next(0.0), float)
    handed[4].settle(Outcome.DELIVERED)
    assert isinstance(one.next(0.0), Permit)


@pytest.mark.parametrize(
    ("chain", "limit_s"),
    [({}, ANEW_S), ({"over_limit": ["wait 300ms", "drop"]}, 0.3)],
    ids=["no chain", "a wait"],
)
def test_after_a_second_or_when_its_wait_ends_any_room_will_do(chain, limit_s):
    """Lest it waits for others who wait for it, or is dropped although it could be admitted."""
    shield = shield_with(rule(in_flight={"messages": 10}, **chain))
    handed = [shield.engine.receive(delivery()) for _ in range(10)]
    one = DeferredDelivery(shield.engine.receive(delivery()), low_mark=0.5)
    handed[0].settle(Outcome.DELIVERED)
    assert isinstance(one.next(0.0), float)
    assert isinstance(one.next(limit_s - 0.01), float)
    assert isinstance(one.next(limit_s), Permit)


# --- too old ----------------------------------------------------------------------------------


def test_the_age_is_that_of_the_timestamp():
    """What has none is admitted, and so is one from the future: a clock that is behind."""
    shield = shield_with(rule(max_age="30s", over_limit="drop"))
    shield.rules[0].policies[0].wall = lambda: NOW_S
    for written_s in (None, NOW_S - 30, NOW_S + 100):
        assert isinstance(shield.engine.receive(delivery(written_s=written_s)), Permit)
    assert isinstance(shield.engine.receive(delivery(written_s=NOW_S - 31)), OverLimit)


# --- hooks ------------------------------------------------------------------------------------


class Hooked:
    """Refuses what is large, and notes how deliveries end."""

    def __init__(self):
        self.ended = []

    @hookimpl
    def shield_before_consume(self, message):
        if message.size > 1000:
            raise Reject("too large")

    @hookimpl
    def shield_after_consume(self, message, outcome):
        self.ended.append((message.destination, str(outcome)))


def test_hooks_see_deliveries_and_only_those():
    """Before the verdict and after the end; what they refuse is counted as dropped."""
    hooked = Hooked()
    shield = shield_with(rule(), plugins=[hooked])
    permit(shield, size=5000).settle(Outcome.DELIVERED)
    shield.engine.receive(delivery()).settle(Outcome.DELIVERED)
    with pytest.raises(Reject):
        shield.engine.receive(delivery(size=5000))
    assert hooked.ended == [("orders", "delivered")]
    assert counts(shield.ledger()) == {"offered": 3, "delivered": 2, "dropped": 1}


# --- asked before there is one ------------------------------------------------------------------


def test_asking_whether_one_would_be_admitted_changes_nothing():
    """It is neither offered nor charged; a rule in shadow has no say."""
    shield = shield_with(
        rule(quota=QUOTA), rule(name="shadow", quota={"rate": "1/h", "burst": 1}, mode="shadow")
    )
    for _ in range(20):
        assert shield.engine.would_receive(delivery())
    for _ in range(10):
        assert isinstance(shield.engine.receive(delivery()), Permit)
    assert not shield.engine.would_receive(delivery())
    assert counts(shield.ledger()) == {"offered": 10, "in_flight": 10}


def test_a_policy_that_fails_admits_what_it_is_asked_about():
    """Or refuses it, where that is the setting."""

    class Fails(Policy):
        def check(self, message, now):
            raise ZeroDivisionError

    for answer, admits in (("open", True), ("closed", False)):
        shield = shield_with(
            rule(fails={}), plugins=[Kinds(policies={"fails": Fails})], on_plugin_error=answer
        )
        assert shield.engine.would_receive(delivery()) is admits
        assert shield.plugin_errors == {"in.fails": 1}


def test_who_has_a_say_in_deliveries_is_known_before_they_come():
    """A rule that covers queue and consumer, or a plugin's hook; a rule about sending has none."""
    shield = shield_with(
        {"match": "*", "quota": "1/s"},
        rule(match="a*", producers="c", max_age="5s", over_limit="drop"),
    )
    assert shield.engine.receives("abc", "c")
    assert shield.engine.receives(None, "c")
    assert not shield.engine.receives("b", "c")
    assert not shield.engine.receives("abc", "d")
    assert not shield_with({"match": "*", "quota": "1/s"}).engine.receives(None, "c")
    assert shield_with(plugins=[Hooked()]).engine.receives("anything", "c")


def test_the_pace_of_deliveries_is_the_slowest_of_all_rules():
    """In messages or in bytes; nothing where no rule is a matter of time."""
    shield = shield_with(rule(quota=["10/s", "100B/s"]), rule(name="b", quota="1/h", mode="shadow"))
    assert shield.engine.pace_s("orders", "c", 5) == pytest.approx(0.1)
    assert shield.engine.pace_s("orders", "c", 500) == pytest.approx(5.0)
    assert shield_with(rule(in_flight={"messages": 5})).engine.pace_s("orders", "c", 5) == 0.0


def test_a_policy_that_fails_says_nothing_about_its_bound():
    """It is counted, and the others are asked."""

    class Fails(Policy, BoundsInFlight):
        def check(self, message, now):
            return None

        def max_in_flight(self):
            raise ZeroDivisionError

    plugin = Kinds(policies={"fails": Fails})
    shield = shield_with(rule(in_flight={"messages": 5}, fails={}), plugins=[plugin])
    assert shield.engine.most_unanswered("orders", "c") == 5
    assert shield.plugin_errors == {"in.fails": 1}


def test_the_bound_of_deliveries_is_the_lowest_of_all_rules():
    """Not of those in shadow, and not of bytes."""
    shield = shield_with(
        rule(name="a", in_flight={"messages": 50}),
        rule(name="b", in_flight={"messages": 20}, match="orders"),
        rule(name="c", in_flight={"messages": 5}, mode="shadow"),
        rule(name="d", in_flight={"bytes": "1MiB"}),
    )
    assert shield.engine.most_unanswered("orders", "c") == 20
    assert shield.engine.most_unanswered("other", "c") == 50
    assert shield_with(rule(quota=QUOTA)).engine.most_unanswered("orders", "c") is None
