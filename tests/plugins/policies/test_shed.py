"""The policy `shed`: who is refused while others say how much, and what is too late."""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from datetime import UTC, datetime
from math import inf, nan

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shield import (
    Envelope,
    Labels,
    Message,
    Outcome,
    OverLimit,
    Permit,
    SettingsError,
    Shield,
    hookimpl,
)
from shield.plugins.policies.shed.controller import ShareController
from shield.plugins.policies.shed.criticality import BUCKETS, NAMES, level_of
from shield.plugins.policies.shed.deadline import seconds_of
from shield.plugins.policies.shed.levels import KEPT, Levels
from shield.plugins.policies.shed.pace import Pace
from shield.testing import FakeClient, PolicyContract
from tests.making import Kinds, admits, counts, message, policy_with, shield_with

SHED = {"match": "*", "shed": "priority", "over_limit": "drop"}
WALL = 1_800_000_000.0


class TestByPriority(PolicyContract):
    name = "shed"
    settings = "priority"


class TestByDeadline(PolicyContract):
    name = "shed"
    settings = {"by": "deadline"}

    def message(self) -> Message:
        one = super().message()
        one.deadline = 1_005.0
        return one


def labelled(name, key=None):
    return message(key=key, headers=[("shield-criticality", name.encode())])


def policy_of(shield, name="shed"):
    return next(p for p in shield.rules[0].policies if p.name == name)


# --- levels ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 4), max_size=50), st.floats(0, 1))
def test_a_quantile_has_that_share_below_it(values, share):
    """Of distinct levels exactly so many, rounded down; all of them for the whole."""
    levels = Levels()
    for value in values:
        levels.add(value)
    threshold = levels.quantile(share)
    below = sum(value < threshold for value in values)
    assert below <= share * len(values)
    if len(set(values)) == len(values):
        assert below == int(share * len(values))
    assert levels.quantile(1.0) == inf


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(0, 3000))
def test_only_the_last_thousand_levels_count(pattern, offered):
    """What came before is forgotten, however often a level came."""
    levels = Levels()
    series = list(itertools.islice(itertools.cycle(pattern), offered))
    for level in series:
        levels.add(level)
    kept = sorted(series[-KEPT:])
    assert len(levels) == len(kept)
    for share in (0.0, 0.25, 0.5, 0.99):
        index = int(share * len(kept))
        assert levels.quantile(share) == (kept[index] if kept else inf)


@given(st.binary(max_size=20), st.floats(0, 0.999), st.integers(0, 3))
def test_a_level_is_within_its_criticality(key, draw, rank):
    """No key lifts a message into another one."""
    assert rank <= level_of(rank, key, draw) < rank + 1
    assert rank <= level_of(rank, None, draw) < rank + 1


def test_a_keys_group_is_the_same_in_every_process():
    """It is computed from the bytes, not from Python's seeded hash."""
    assert level_of(2, b"user-42", 0.0) == level_of(2, b"user-42", 0.0)
    assert [int((level_of(0, key, 0.0)) * BUCKETS) for key in (b"a", b"user-42", "ä", 7)] == GROUPS


GROUPS = [125, 28, 13, 59]


@pytest.mark.parametrize("name", [b"%d", b"user-%d", b"%08d", b"tenant-%d-eu"])
def test_numbered_keys_are_spread_evenly(name):
    """No group has twice its part of them, nor less than half."""
    found = Counter(int(level_of(0, name % n, 0.0) * BUCKETS) for n in range(BUCKETS * 100))
    assert len(found) == BUCKETS
    assert 50 < min(found.values()) <= max(found.values()) < 200


# --- who ------------------------------------------------------------------------------------------


SETTLED = 400
"""After so many milliseconds the bound has filled as far as it will."""


def overload(shield, times, mix, steps=1200, keys=50, capacity=4, seed=1):
    """Offer `times` what a server takes; it answers so many in each millisecond.

    Return how many of each criticality were offered and shed, and the keys of both kinds.
    """
    rng = random.Random(seed)
    policy_of(shield).random = rng.random
    waiting = deque()
    offered, shed, keys_sent, keys_shed = Counter(), Counter(), set(), set()
    names, weights = zip(*mix.items(), strict=True)
    for step in range(steps):
        for _ in range(capacity * times):
            name = rng.choices(names, weights)[0]
            key = b"user-%d" % rng.randrange(keys)
            verdict = shield.admit(labelled(name, key))
            if isinstance(verdict, Permit):
                waiting.append(verdict)
            if step < SETTLED:
                continue
            offered[name] += 1
            if isinstance(verdict, Permit):
                keys_sent.add((name, key))
            else:
                keys_shed.add((name, key))
                shed[verdict.policy, name] += 1
        for _ in range(min(capacity, len(waiting))):
            waiting.popleft().settle(Outcome.DELIVERED)
        shield.clock.advance(0.001)
    return offered, shed, keys_sent, keys_shed


MIX = {"critical-plus": 5, "critical": 10, "sheddable-plus": 35, "sheddable": 50}


def test_under_five_times_the_load_only_the_least_critical_are_shed():
    """Of 20% that can be taken all of the critical 15% are, and as many of the next as fit."""
    shield = shield_with(SHED | {"in_flight": {"messages": 1000}})
    offered, shed, *_ = overload(shield, 5, MIX)
    assert shed["shed", "critical-plus"] == 0
    assert shed["shed", "critical"] <= 0.002 * offered["critical"]  # the sample's chance
    assert shed["shed", "sheddable"] == offered["sheddable"]
    taken = 1 - shed["shed", "sheddable-plus"] / offered["sheddable-plus"]
    assert taken == pytest.approx(5 / 35, abs=0.03)
    assert sum(count for (policy, _), count in shed.items() if policy == "in_flight") == 0
    assert 1 - sum(shed.values()) / sum(offered.values()) == pytest.approx(0.2, abs=0.01)


def test_the_same_keys_are_shed_each_time():
    """But for those next to the threshold, no user is served now and refused then."""
    shield = shield_with(SHED | {"in_flight": {"messages": 1000}})
    *_, sent, refused = overload(shield, 2, {"critical": 1})
    assert len(sent) >= 20
    assert len(refused) >= 20
    assert len(sent & refused) <= 10


def critical_shed(offered, shed):
    """Return which part of what is critical was refused, by whichever policy."""
    critical = {"critical", "critical-plus"}
    refused = sum(count for (_, name), count in shed.items() if name in critical)
    return refused / max(1, sum(offered[name] for name in critical))


@pytest.mark.parametrize("bound", [50, 100, 200])
def test_the_last_places_of_a_small_bound_are_for_the_critical(bound):
    """They are three quarters of what can be taken; all of them are, and so is all the rest."""
    shield = shield_with(SHED | {"in_flight": {"messages": bound}})
    offered, shed, *_ = overload(shield, 5, MIX)
    assert critical_shed(offered, shed) < 0.01
    assert shed["shed", "sheddable"] == offered["sheddable"]
    taken = sum(offered.values()) - sum(shed.values())
    assert taken / (sum(offered.values()) / 5) == pytest.approx(1.0, abs=0.02)


@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.integers(50, 150), st.integers(1, 14), st.integers(0, 60), st.integers(0, 99))
def test_nothing_critical_is_shed_while_others_are_admitted(bound, critical, plus, seed):
    """Whatever the bound and the mix, while what is critical alone could all be taken.

    But for chance: with what is offered in a moment, not one in fifty; nor is a place lost.
    """
    shield = shield_with(SHED | {"in_flight": {"messages": bound}})
    mix = {"critical": critical, "sheddable-plus": plus, "sheddable": 100 - critical - plus}
    offered, shed, *_ = overload(shield, 5, mix, steps=900, seed=seed)
    assert critical_shed(offered, shed) <= 0.02
    taken = sum(offered.values()) - sum(shed.values())
    assert taken / (sum(offered.values()) / 5) == pytest.approx(1.0, abs=0.05)


def test_no_place_is_kept_for_those_who_do_not_come():
    """With the least critical alone, or with nobody above them lately, the bound fills."""
    shield = shield_with(SHED | {"in_flight": {"messages": 50}})
    offered, shed, *_ = overload(shield, 2, {"sheddable": 1})
    taken = offered["sheddable"] - sum(shed.values())
    assert taken / (offered["sheddable"] / 2) == pytest.approx(1.0, abs=0.02)


def test_a_pressure_that_is_no_bound_has_no_places():
    """Beside a quota it makes no difference how much is unanswered."""

    def admitted(settled):
        shield = shield_with(SHED | {"quota": {"rate": "1000/s", "burst": 100}})
        rng = policy_of(shield).random = random.Random(1).random
        found = []
        for number in range(4000):
            name = "critical-plus" if number % 5 == 0 else "sheddable"
            verdict = shield.admit(labelled(name, b"%d" % int(rng() * 100)))
            found.append(isinstance(verdict, Permit))
            if settled and isinstance(verdict, Permit):
                verdict.settle(Outcome.DELIVERED)
            shield.clock.advance(0.0002)
        return found

    assert admitted(settled=True) == admitted(settled=False)


def test_headers_that_change_meanwhile_change_no_count():
    """A message gives back the place that it has taken, whatever it is called by then."""
    shield = shield_with(SHED | {"in_flight": {"messages": 10}})
    headers = {"shield-criticality": "critical"}
    verdict = shield.admit(message(headers=headers))
    headers["shield-criticality"] = "sheddable"
    verdict.settle(Outcome.DELIVERED)
    assert shield.ledger().delivered == 1
    held = policy_of(shield)._held
    assert [held.up_to(rank) for rank in range(4)] == [0, 0, 0, 0]
    assert len(held) == 0


@pytest.mark.parametrize("times", [1, 2, 10])
@pytest.mark.parametrize("bound", [50, 1000])
def test_what_can_be_taken_is_taken(times, bound):
    """The bound neither runs empty nor is hit: goodput is the capacity at every load."""
    shield = shield_with(SHED | {"in_flight": {"messages": bound}})
    offered, shed, *_ = overload(shield, times, MIX)
    taken = sum(offered.values()) - sum(shed.values())
    assert taken / (sum(offered.values()) / times) == pytest.approx(1.0, abs=0.02)


def in_batches(shield, rounds=2000, offered=100, answered=10):
    """Offer ten times what is answered, all of it at once: the bound is empty, then full again."""
    policy_of(shield).random = random.Random(1).random
    found = Counter()
    held = []
    for number in range(rounds):
        for n in range(offered):
            name = "critical-plus" if n % 20 == number % 20 else "sheddable"
            verdict = shield.admit(labelled(name, b"%d" % (number * offered + n)))
            if number >= rounds / 2:
                found[name, isinstance(verdict, Permit)] += 1
            if isinstance(verdict, Permit):
                held.append(verdict)
            else:
                verdict.end(None)
            if n % 10 == 9:
                shield.clock.advance(0.0002)
        for permit in held[:answered]:
            permit.settle(Outcome.DELIVERED)
        del held[:answered]
    return found


def test_room_that_is_free_for_a_moment_is_not_for_the_least_critical():
    """Ten answers at once empty the bound: the first who come are not those who get in."""
    shield = shield_with(SHED | {"in_flight": {"messages": 10}})
    found = in_batches(shield, rounds=600)
    kept = found["critical-plus", True] / (
        found["critical-plus", True] + found["critical-plus", False]
    )
    sheddable = found["sheddable", True] / (found["sheddable", True] + found["sheddable", False])
    assert kept > 0.8
    assert sheddable < 0.1
    assert found["critical-plus", True] + found["sheddable", True] > 0.9 * 300 * 10


@given(
    st.lists(
        st.tuples(st.floats(0, 0.3), st.floats(0, 1), st.integers(0, 3), st.integers(0, 3)),
        max_size=50,
    )
)
def test_the_balance_is_a_part_and_nothing_without_pressure(events):
    """From 0 to 1; 0 where the pressure has been low for half a second."""
    balance, now = ShareController(), 1_000.0
    for gap_s, pressure, offers, admitted in events:
        now += gap_s
        for _ in range(offers * 10):
            balance.offer(now, pressure, offers)
        balance.admit(min(admitted, offers) * 10)
        assert 0.0 <= balance.excess(now, 0.5) <= 1.0
        assert balance.excess(now, 1.0) == 0.0
    assert balance.excess(now + 0.5, 0.0) == 0.0


@given(
    st.integers(20, 1000), st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 0.95), st.floats(0, 1)
)
def test_the_corrected_part_grows_with_the_pressure(offered, admitted, lower, above, higher):
    """From 0 to 1; all of it at the full pressure, none up to `above`, and in the middle as was."""
    balance, now = ShareController(), 1_000.0
    for _ in range(offered):
        balance.offer(now, above, 0)
    balance.admit(int(admitted * offered))
    lower, higher = sorted((lower, higher))
    assert 0.0 <= balance.corrected(now, lower, above) <= balance.corrected(now, higher, above)
    assert balance.corrected(now, higher, above) <= 1.0
    assert balance.corrected(now, above, above) == 0.0
    assert balance.corrected(now, 1.0, above) == 1.0
    was = 1.0 - max(0.02, int(admitted * offered) / offered)
    assert balance.corrected(now, (1.0 + above) / 2, above) == pytest.approx(was, abs=1e-9)


def test_below_the_pressure_nothing_is_shed():
    """Half of the bound in use, by default, is no overload."""
    shield = shield_with(SHED | {"in_flight": {"messages": 10}})
    assert all(isinstance(shield.admit(labelled("sheddable")), Permit) for _ in range(6))


def test_alone_in_its_rule_it_sheds_nothing():
    """It does not know what would be too much."""
    shield = shield_with(SHED)
    assert all(isinstance(shield.admit(labelled("sheddable")), Permit) for _ in range(5000))


def test_another_rules_pressure_is_not_its_own():
    """Only policies beside it count."""
    full = {"match": "*", "in_flight": {"messages": 1}}
    shield = shield_with({"match": "a", "shed": "priority"}, full | {"match": "a*"})
    assert isinstance(shield.admit(message("a")), Permit)
    verdict = shield.admit(message("a"))
    assert isinstance(verdict, OverLimit)
    assert verdict.policy == "in_flight"


class Classifier:
    @hookimpl
    def shield_classify(self, message):
        return Labels(priority="sheddable") if message.destination == "audit" else None


@pytest.mark.parametrize(
    ("table", "given", "reason"),
    [
        ({}, {}, "critical"),
        ({"criticality": "critical-plus"}, {}, "critical-plus"),
        ({}, {"headers": {"shield-criticality": "sheddable-plus"}}, "sheddable-plus"),
        ({}, {"headers": [("shield-criticality", b"sheddable")]}, "sheddable"),
        ({"header": "prio"}, {"headers": {"prio": "sheddable"}}, "sheddable"),
        ({"header": "prio"}, {"headers": {"shield-criticality": "sheddable"}}, "critical"),
        ({}, {"headers": {"shield-criticality": "urgent!"}}, "critical"),
        ({}, {"destination": "audit", "headers": {"shield-criticality": "critical"}}, "sheddable"),
    ],
)
def test_who_says_how_critical_a_message_is(table, given, reason):
    """A plugin, else the header, else the rule; unlabelled, and unknown words, are critical."""
    rule = {"match": "*", "shed": {"by": "priority", **table}, "in_flight": {"messages": 1}}
    shield = shield_with(rule, plugins=[Classifier()])
    shed = policy_of(shield)
    one = message(**given)
    shield.admit(one)
    assert shed.check(one, shield.clock.now()).reason == reason


def test_a_less_critical_message_that_waits_holds_up_no_other():
    """Each criticality has a line of its own."""
    shed = policy_of(shield_with(SHED))
    lines = [shed.queue_key(labelled(name)) for name in NAMES]
    assert len(set(lines)) == 4
    assert shed.queue_key(labelled("critical", b"1")) == shed.queue_key(labelled("critical", b"2"))


def test_who_waits_is_let_in_when_the_pressure_falls():
    """Nobody settles anything: a quota's pressure falls with time alone."""
    shield = shield_with(
        {
            "match": "*",
            "quota": {"rate": "10/s", "burst": 10},
            "shed": {"by": "priority"},
            "over_limit": ["wait 10s", "drop"],
        }
    )
    client = FakeClient(shield)
    sheddable = {"shield-criticality": "sheddable"}
    for _ in range(9):
        client.publish("orders", b"1", b"key")
    begun = shield.clock.now()
    client.publish("orders", b"2", b"key", sheddable)
    assert 0.1 <= shield.clock.now() - begun <= 0.6
    client.ack()
    assert counts(shield.ledger()) == {"offered": 10, "delivered": 10}


# --- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1800000000500", WALL + 0.5),
        ("2027-01-15T08:00:00Z", WALL),
        ("2027-01-15T08:00:00.250+00:00", WALL + 0.25),
        ("2027-01-15T09:00:00+01:00", WALL),
        ("2027-01-15T08:00:00", WALL),
        ("tomorrow", None),
        ("", None),
        ("-5", None),
        ("9" * 400, None),
        ("²", None),
    ],
)
def test_a_deadline_is_read_from_rfc_3339_or_milliseconds(text, seconds):
    """And what is neither is none."""
    assert seconds_of(text) == seconds


@given(st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1)))
def test_both_ways_to_write_a_deadline_say_the_same(moment):
    """To the millisecond."""
    moment = moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
    in_ms = round(moment.timestamp() * 1000)
    assert seconds_of(str(in_ms)) == pytest.approx(seconds_of(moment.isoformat()), abs=1e-6)


@given(st.text(max_size=30))
def test_no_text_of_a_deadline_makes_it_raise(text):
    """A header is whatever a producer puts there."""
    found = seconds_of(text)
    assert found is None or isinstance(found, float)


@pytest.mark.parametrize("by", ["priority", "deadline"])
def test_what_is_past_its_deadline_is_shed_for_good(by):
    """Also a critical one, without any pressure; a wait would be in vain."""
    shield = shield_with({"match": "*", "shed": by, "over_limit": ["wait 1h", "drop"]})
    policy_of(shield).wall = lambda: WALL
    client = FakeClient(shield)
    begun = shield.clock.now()
    for deadline_ms in (WALL * 1000 - 1, WALL * 1000 + 1):
        client.publish("orders", b"1", headers={"shield-deadline": str(int(deadline_ms))})
    client.ack()
    assert shield.clock.now() == begun
    ledger = shield.ledger()
    assert counts(ledger) == {"offered": 2, "dropped": 1, "delivered": 1}
    assert ledger.drops == {("rule-1", "shed", "past its deadline"): 1}


def test_a_classifiers_deadline_goes_before_a_headers():
    """It is in monotonic seconds, as time is for policies."""
    shield = shield_with({"match": "*", "shed": "deadline"})
    policy_of(shield).wall = lambda: WALL
    one = message(headers={"shield-deadline": str(int(WALL * 1000) + 5000)})
    one.deadline = shield.clock.now() - 1
    assert shield.admit(one).reason == "past its deadline"


def test_a_deadline_that_cannot_be_met_at_the_current_rate_is_shed():
    """A hundred unanswered, ten answered in a tenth of a second: one more takes a second."""
    shield = shield_with({"match": "*", "shed": "deadline"})
    permits = [shield.admit(message()) for _ in range(110)]
    for permit in permits[:10]:
        permit.settle(Outcome.DELIVERED)
    for in_s, admitted in ((0.9, False), (1.1, True)):
        one = message()
        one.deadline = shield.clock.now() + in_s
        verdict = shield.admit(one)
        assert isinstance(verdict, Permit) is admitted
        if not admitted:
            assert (verdict.reason, verdict.retry_after_s) == ("would miss its deadline", None)


def test_a_message_whose_deadline_passes_while_it_waits_is_not_sent():
    """When its turn comes it is dropped, and does not wait on for what is left of its time."""
    rule = {"match": "*", "shed": "deadline", "quota": {"rate": "1/h", "burst": 1}}
    shield = shield_with(rule | {"over_limit": ["wait 2h", "drop"]})
    begun = shield.clock.now()
    policy_of(shield).wall = lambda: WALL + shield.clock.now() - begun
    client = FakeClient(shield)
    client.publish("orders", b"1")
    late = {"shield-deadline": str(int(WALL * 1000) + 60_000)}
    client.publish("orders", b"2", headers=late)
    assert shield.clock.now() - begun == pytest.approx(3600.0, abs=0.1)
    client.ack()
    assert counts(shield.ledger()) == {"offered": 2, "dropped": 1, "delivered": 1}


def test_what_comes_back_from_aside_is_not_held_to_its_deadline():
    """Its owner chose to keep it; refused for ever it would stop all that is behind it."""
    shed = policy_of(shield_with({"match": "*", "shed": "deadline"}))
    one = Envelope("orders", b"kept", "fake").message()
    one.deadline, one.aside = 1.0, True
    assert shed.check(one, 1_000.0) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.3)), max_size=60))
def test_the_pace_never_promises_a_wait_that_the_best_tenth_denies(events):
    """Not negative, finite, and unknown (0) after a second without an answer."""
    pace, now = Pace(), 1_000.0
    for answered, gap_s in events:
        now += gap_s
        if answered and pace.unanswered:
            pace.answered(now)
        else:
            pace.unanswered += 1
        assert 0.0 <= pace.wait_s(now) < inf
        assert pace.wait_s(now) <= pace.unanswered * 0.1
    assert pace.wait_s(now + 1.1) == 0.0


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("prioriy", "rules[0].shed[0].by: found 'prioriy'; allowed is 'priority' or 'deadline'"),
        ({}, "rules[0].shed[0].by: is missing"),
        ({"by": "priority", "criticality": "high"}, "rules[0].shed[0].criticality: found 'high'"),
        ({"by": "priority", "above": "100%"}, "allowed is less than 100%"),
        ({"by": "priority", "per": "nothing"}, "unknown key"),
        ({"by": "deadline", "above": 0.2}, 'above: allowed only with by = "priority"'),
    ],
)
def test_settings_that_make_no_sense_are_refused(table, says):
    """With the key, what was found and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        shield_with({"match": "*", "shed": table})
    assert says in str(caught.value)


@pytest.mark.parametrize("method", ["pressure", "rejection_share"])
@pytest.mark.parametrize(
    "says",
    [lambda: "soon", lambda: nan, lambda: inf, lambda: -1.0, lambda: 1e300, lambda: 1 / 0],
    ids=["text", "nan", "endless", "below-zero", "huge", "raises"],
)
def test_what_another_policy_says_wrong_sheds_nobody(method, says):
    """It is that policy that is named, and not the one that asked it."""
    nasty = Kinds({"nasty": policy_with(**{method: lambda self, message, now: says()})})
    shield = Shield(
        {"rules": [{"match": "*", "nasty": {}, "shed": {"by": "priority"}}]}, plugins=[nasty]
    )
    for _ in range(20):
        assert admits(shield, headers={"shield-criticality": "sheddable"})
    assert list(shield.plugin_errors) == ["rule-1.nasty"]
