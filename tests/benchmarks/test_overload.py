"""The benchmark `overload`: its load, its bound, its books, its report and its picture."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections import Counter
from time import monotonic

import pytest

from benchmarks import overload
from benchmarks.measure import Effort, Noise
from benchmarks.overload import consuming, picture, producing, rules, trial
from benchmarks.overload.bound import Bound
from benchmarks.overload.load import CAPACITY, PERCENT, Span, body, criticality, due, read
from benchmarks.overload.simulated import Simulation
from benchmarks.overload.trial import Outcome, Trial
from shield import Shield


class Time:
    """A clock that sleeping moves."""

    def __init__(self):
        self.at_s = 100.0

    def now(self):
        return self.at_s

    def sleep(self, seconds):
        self.at_s += max(0.0, seconds)


@pytest.fixture
def time():
    return Time()


# --- load -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_s", [500, 20_000])
def test_load_comes_in_bursts_and_is_as_much_as_was_asked_for(time, per_s):
    """In the mean, within its span, and the same for the same seed."""
    span = Span(101.0, 102.0, 161.0)
    bursts = list(due(span, per_s, random.Random(3), time.now, time.sleep))
    assert sum(bursts) == pytest.approx(60 * per_s, rel=0.05)
    assert (min(bursts), max(bursts)) == (1, 20)
    assert 160.0 < time.now() <= 161.0
    again = Time()
    assert list(due(span, per_s, random.Random(3), again.now, again.sleep)) == bursts


def test_a_producer_that_was_held_up_offers_at_once_what_it_has_missed(time):
    """Its load is that of the clock."""
    span = Span(100.0, 100.0, 110.0)
    bursts = due(span, 1000, random.Random(3), time.now, time.sleep)
    next(bursts)
    time.at_s = 109.9
    assert sum(bursts) == pytest.approx(10_000, rel=0.1)
    assert time.now() <= 110.0


def test_a_producer_that_cannot_keep_up_ends_in_time(time):
    """What it owes then is never offered."""
    span = Span(100.0, 100.0, 110.0)
    offered = 0
    for burst in due(span, 20_000, random.Random(3), time.now, time.sleep):
        offered += burst
        time.sleep(burst / 5000)
    assert time.now() <= 110.1
    assert offered == pytest.approx(50_000, rel=0.05)


def test_a_hundred_messages_are_the_same_mixture_anywhere():
    """The critical ones are few enough for the consumer at ten times its capacity."""
    for first in (0, 7, 12_345):
        assert Counter(criticality(first + n) for n in range(100)) == PERCENT
    assert (PERCENT["critical-plus"] + PERCENT["critical"]) * 10 <= 100


def test_a_body_says_when_it_was_offered_and_how_critical_it_is():
    """In a hundred bytes."""
    assert len(body(12.5, "critical")) == 100
    assert read(body(12.5, "critical")) == (12.5, "critical")


def test_only_what_is_offered_in_its_span_is_measured_and_all_is_counted():
    """The first seconds are for finding the balance."""

    class Offers:
        def offer(self, raw, name, user):
            return name == "sheddable"

        def close(self):
            """Nothing to do."""

    now = monotonic()
    told = producing.offer(Offers(), Span(now, now + 0.1, now + 0.2), 20_000, 1)
    assert told["total"] > sum(told["offered"].values()) > 0
    assert told["total_shed"] > told["shed"]["sheddable"] == told["offered"]["sheddable"]
    assert not told["shed"]["critical"]


# --- the bound ------------------------------------------------------------------------------------


def test_the_consumer_does_so_much_a_second_and_no_more(time):
    """Two thousand messages take a second."""
    bound = Bound(CAPACITY, time.now, time.sleep)
    for _ in range(2 * CAPACITY):
        done_s = bound.work()
    assert done_s == pytest.approx(102.0, abs=0.001)


def test_what_the_machine_keeps_from_the_consumer_it_makes_up_for(time):
    """Messages waited: half a second later it is where it would have been."""
    bound = Bound(CAPACITY, time.now, time.sleep)
    time.sleep(0.5)
    for _ in range(CAPACITY):
        done_s = bound.work()
    assert done_s == pytest.approx(101.0, abs=0.001)


def test_time_in_which_nothing_waits_is_lost(time):
    """An idle consumer saves nothing up."""
    bound = Bound(CAPACITY, time.now, time.sleep)
    time.sleep(0.5)
    bound.idle()
    for _ in range(CAPACITY):
        done_s = bound.work()
    assert done_s == pytest.approx(101.5, abs=0.001)


def test_what_is_consumed_late_is_counted_apart():
    """A message a second old is of no use; of the critical ones the time they took is kept."""
    now = monotonic()
    raws = [body(now, "critical"), body(now - 5, "critical-plus"), body(now, "sheddable")]

    class Takes:
        def take(self, stop):
            yield None
            yield from raws

        def close(self):
            """Nothing to do."""

    told = consuming.consume(Takes(), Span(now, now, now + 60), threading.Event())
    assert (told["total"], told["in_time"], told["late"]) == (3, 2, 1)
    assert len(told["took_s"]) == 3
    assert sorted(told["critical_s"])[1] >= 5.0


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("broker", ["kafka", "rabbitmq"])
def test_the_settings_of_the_producers_are_sound(broker):
    """One rule: backlog, read ten times a second, and shed."""
    own = Shield(rules.settings(broker, "place"))
    assert [policy.name for policy in own.rules[0].policies] == ["backlog", "shed"]


# --- the books ------------------------------------------------------------------------------------

TRIAL = Trial("kafka", "shield", 5.0, 60, 8)


def sent(**changed):
    ledger = {"balanced": True, "offered": 100, "dropped": 60, "delivered": 40}
    ledger |= changed.pop("ledger", {})
    return [{"total": 100, "total_shed": 60, "offered": {}, "shed": {}, "ledger": ledger} | changed]


def test_books_that_balance_are_a_result():
    """Offered is consumed, shed, or in the broker; the ledger says the same."""
    trial._prove_accounted(TRIAL, sent(), consumed=30, left=10)


@pytest.mark.parametrize(
    ("changed", "consumed", "left", "says"),
    [
        ({}, 30, 9, "kafka, shield, 5x: 100 were offered; 30 consumed, 60 shed, 9 left"),
        ({}, 31, 10, "100 were offered; 31 consumed"),
        ({"ledger": {"balanced": False}}, 30, 10, "the ledger does not agree"),
        ({"ledger": {"delivered": 39}}, 30, 10, "the ledger does not agree"),
    ],
)
def test_a_message_too_few_or_too_many_fails_the_benchmark(changed, consumed, left, says):
    """A wrong count is no result."""
    with pytest.raises(AssertionError, match=says):
        trial._prove_accounted(TRIAL, sent(**changed), consumed, left)


def test_the_99th_percentile_is_what_all_but_one_of_a_hundred_are_below():
    """And 0 where there was none."""
    assert trial.p99([float(n) for n in range(1000)]) == 990.0
    assert trial.p99([]) == 0.0


# --- report and picture ---------------------------------------------------------------------------


def outcome(one, goodput=1950.0, p99_s=0.03, backlog=80):
    shed = {"critical-plus": 0.0, "critical": 0.0, "sheddable-plus": 0.4, "sheddable": 1.0}
    return Outcome(one, 10_000.0, goodput, p99_s, 0.01, p99_s, backlog, shed, 9, 3, 5, 1)


@pytest.fixture
def outcomes():
    return [outcome(one, 1000.0 if one.load < 1 else 1950.0) for one in overload.trials(Effort())]


def test_all_loads_are_tried_on_both_brokers_with_both_sides():
    """Sixty seconds each; a quick run has the two loads that are compared."""
    full, quick = overload.trials(Effort()), overload.trials(Effort(quick=True))
    assert (len(full), len(quick)) == (20, 8)
    assert {one.seconds for one in full} == {60}
    assert {one.load for one in quick} == {0.5, 5.0}


def test_a_report_judges_shield_at_five_times_the_capacity(outcomes):
    """Goodput, latency and backlog there, of both brokers; what the rest came to is shown."""
    report = overload.report(outcomes, Noise(), "kafka native")
    assert report.reached
    assert sum(line.target is not None for line in report.results) == 6
    assert report.ratio == pytest.approx(0.975)
    assert sum("9 offered = 3 consumed + 5 shed + 1 in the broker" in n for n in report.notes) == 20


@pytest.mark.parametrize("worse", [{"goodput": 1899}, {"p99_s": 0.061}, {"backlog": 2000}])
def test_a_report_says_what_was_missed(outcomes, worse):
    """On one broker alone is enough."""
    at = next(n for n, o in enumerate(outcomes) if str(o.trial) == "rabbitmq, shield, 5x")
    outcomes[at] = outcome(outcomes[at].trial, **worse)
    assert not overload.report(outcomes, Noise(), "kafka native").reached


def test_the_picture_is_drawn(outcomes, tmp_path):
    """A PNG, also where a side has no latency to show."""
    outcomes[0] = dataclasses.replace(outcomes[0], critical_p99_s=0.0)
    picture.draw(outcomes, tmp_path / "overload.png")
    drawn = (tmp_path / "overload.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) < 150_000


# --- what the rule does by itself -----------------------------------------------------------------


@pytest.mark.parametrize("broker", ["kafka", "rabbitmq"])
def test_at_five_times_the_load_the_consumer_is_busy_with_the_most_critical(broker):
    """In simulated time, without what a machine adds, the aims are reached with room to spare."""
    half = Simulation(broker, 0.5, 4.0).run()
    crowded = Simulation(broker, 5.0, 4.0).run()
    assert crowded.goodput_per_s > 0.97 * CAPACITY
    assert crowded.critical_p99_s < 1.8 * half.critical_p99_s
    assert crowded.share_shed("critical-plus") < 0.005
    assert crowded.share_shed("critical") < 0.01
    assert 0.2 < crowded.share_shed("sheddable-plus") < 0.7
    assert crowded.share_shed("sheddable") > 0.95
    assert crowded.largest_backlog < 2 * rules.LIMITS[broker]
