"""The policy `adaptive`: a bound that finds its size by how the broker answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import Message, Outcome, OverLimit, SettingsError, Signals
from shield.plugins.policies.adaptive.aimd import StabilizingAimd
from shield.plugins.policies.adaptive.gradient2 import Gradient2
from shield.plugins.policies.adaptive.limit import Sample
from shield.testing import FakeClient, PolicyContract
from tests.making import admits, counts, message, permit, shield_with

ALGORITHMS = pytest.mark.parametrize("kind", [StabilizingAimd, Gradient2])


class TestAimd(PolicyContract):
    name = "adaptive"
    settings = {"min": 2, "max": 30}

    def message(self) -> Message:
        return message(signals=Signals(lambda: 1_000.0))


class TestGradient2(PolicyContract):
    name = "adaptive"
    settings = {"algorithm": "gradient2", "max": 50}


def answer(now=0.0, latency_s=0.01, in_flight=100, slow=False, overloaded=False):
    return Sample(now, latency_s, 10.0 if slow else 1.0, 3.0, overloaded, in_flight)


ANSWERS = st.builds(
    Sample,
    now=st.floats(0, 1e6),
    latency_s=st.none() | st.floats(0, 1e4),
    over_baseline=st.none() | st.floats(0, 1e9),
    expected=st.just(3.0),
    overloaded=st.booleans(),
    in_flight=st.integers(1, 10**9),
)


@ALGORITHMS
@given(st.lists(ANSWERS, max_size=60), st.integers(1, 50), st.integers(0, 500))
def test_no_answers_drive_the_limit_out_of_its_bounds(kind, answers, low, room):
    """Never below the minimum, never above the maximum, and it starts there."""
    limit = kind(low, low + room)
    assert limit.limit == low + room
    for each in sorted(answers, key=lambda a: a.now):
        limit.sample(each)
        assert low <= limit.limit <= low + room


@ALGORITHMS
def test_a_broker_that_is_well_has_the_maximum(kind):
    """At a latency that does not change nothing is taken away, however long."""
    limit = kind(10, 200)
    for n in range(10_000):
        limit.sample(answer(now=n * 0.001, in_flight=200))
    assert limit.limit == 200


# --- aimd -----------------------------------------------------------------------------------------


def test_one_burst_of_late_answers_costs_a_tenth():
    """All that was in flight comes back late at once: the limit falls once and not a hundred times.

    What was sent afterwards and is late as well lowers it again.
    """
    limit = StabilizingAimd(10, 100)
    for left in range(100, 0, -1):
        limit.sample(answer(in_flight=left, slow=True))
    assert limit.limit == pytest.approx(90)
    limit.sample(answer(in_flight=90, slow=True))
    assert limit.limit == pytest.approx(81)


def test_while_more_is_in_flight_than_allowed_nothing_lowers_it_further():
    """The decrease before has not shown yet."""
    limit = StabilizingAimd(10, 100)
    limit.sample(answer(in_flight=101, slow=True))
    assert limit.limit == 100


def test_it_grows_by_a_tenth_a_round_trip_where_the_limit_is_used():
    """And stays where it is not: unused room says nothing."""
    limit = StabilizingAimd(10, 100)
    limit.move_to(50)
    limit.sample(answer(in_flight=24))
    assert limit.limit == 50
    for _ in range(50):
        limit.sample(answer(in_flight=30))
    assert limit.limit == pytest.approx(55)


def test_an_overload_is_as_bad_as_a_late_answer():
    """Also where no latency is known."""
    limit = StabilizingAimd(10, 100)
    limit.sample(Sample(0.0, None, None, 3.0, True, 100))
    assert limit.limit == pytest.approx(90)


# --- gradient2 ------------------------------------------------------------------------------------


def test_gradient2_follows_a_latency_that_rises_and_falls():
    """Threefold latency takes a third of the limit in seconds; when it is over that comes back."""
    limit = Gradient2(10, 200)
    now = 0.0

    def answers(seconds, latency_s):
        nonlocal now
        for _ in range(int(seconds * 100)):
            now += 0.01
            limit.sample(answer(now=now, latency_s=latency_s, in_flight=int(limit.limit)))

    answers(60, 0.01)
    assert limit.limit == 200
    answers(2, 0.03)
    assert limit.limit < 130
    answers(60, 0.01)
    assert limit.limit == 200


def test_gradient2_moves_ten_times_a_second():
    """A thousand answers at one moment move it once."""
    limit = Gradient2(10, 200)
    for _ in range(1000):
        limit.sample(answer(now=1.0, in_flight=200, overloaded=True))
    assert limit.limit == pytest.approx(0.8 * 200 + 0.2 * (100 + 4))


def test_gradient2_learns_nothing_from_room_that_is_not_used():
    """Of a limit of 100 ten are in flight: the latency is not its doing."""
    limit = Gradient2(10, 100)
    for n in range(100):
        limit.sample(answer(now=n * 1.0, latency_s=0.01 * (n + 1), in_flight=10))
    assert limit.limit == 100


# --- the policy -----------------------------------------------------------------------------------


def policy_of(shield):
    return shield.rules[0].policies[0]


def test_it_starts_at_its_maximum_and_shows_its_limit():
    """As `in_flight` with that many messages."""
    shield = shield_with({"match": "*", "adaptive": {"min": 2, "max": 5}})
    assert sum(admits(shield) for _ in range(20)) == 5
    assert policy_of(shield).status(0.0) == {"limit": 5, "in_flight": 5}


def test_late_answers_lower_it_and_good_ones_raise_it():
    """By the client's latency signal, as a multiple of its baseline."""
    shield = shield_with({"match": "*", "adaptive": {"min": 10, "max": 100}, "over_limit": "drop"})
    client = FakeClient(shield)
    clock, latency = shield.clock, client.signals.latency

    def rounds(count, latency_s):
        for _ in range(count):
            for _ in range(100):
                client.publish("orders", b"1")
            clock.advance(latency_s)
            for _ in range(20):
                latency.add(clock.now(), latency_s)
            client.ack()
            shield.ledger()  # picks the answers up

    rounds(10, 0.010)
    assert policy_of(shield).limit == 100
    rounds(10, 0.050)
    assert policy_of(shield).limit == pytest.approx(100 * 0.9**10, abs=1.5)
    rounds(30, 0.010)
    assert policy_of(shield).limit == 100
    assert shield.ledger().balanced


def test_overloads_teach_and_failures_do_not():
    """A timeout is the broker's, a bad message is not."""
    shield = shield_with({"match": "*", "adaptive": {"min": 1, "max": 10}})
    for outcome, limit in ((Outcome.FAILED, 10), (Outcome.OVERLOADED, 9)):
        permits = [permit(shield) for _ in range(9)]
        for each in permits:
            each.settle(outcome)
        assert policy_of(shield).limit == limit
    assert policy_of(shield).in_flight == 0


def test_a_forked_child_keeps_what_was_learned():
    """With nothing in flight: that is the parent's."""
    old = policy_of(shield_with({"match": "*", "adaptive": {"max": 100}}))
    old._limit.move_to(40)
    old.acquire(message(), 0.0)
    new = policy_of(shield_with({"match": "*", "adaptive": {"max": 100}}))
    new.carry_over(old)
    assert (new.limit, new.in_flight) == (40, 0)


def test_it_bounds_what_shed_then_shares_out():
    """Beside `shed` the limit is used up by the more critical."""
    rule = {"match": "*", "adaptive": {"max": 100}, "shed": "priority", "over_limit": "drop"}
    shield = shield_with(rule)
    client = FakeClient(shield)
    for n in range(2000):
        name = "critical-plus" if n % 20 == 0 else "sheddable"
        client.publish("orders", b"%d" % n, headers={"shield-criticality": name})
        if n % 5 == 0:
            client.ack(1)
    client.ack()
    critical = [r for r in client.arrived["orders"] if "plus" in r.headers["shield-criticality"]]
    assert len(critical) == 100
    assert counts(shield.ledger())["dropped"] > 1400
    assert {policy for _, policy, _ in shield.ledger().drops} == {"shed"}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("vegas", "adaptive[0].algorithm: found 'vegas'; allowed is 'aimd' or 'gradient2'"),
        ({"min": 0}, "adaptive[0].min: found 0; allowed is 1 or more"),
        ({"min": 50, "max": 10}, "min is 50 and max 10; allowed is a min up to the max"),
        ({"over_baseline": 1.0}, "greater than 1"),
        ({"algorithm": "gradient2", "over_baseline": 2.0}, "over_baseline: allowed only with"),
    ],
)
def test_settings_that_make_no_sense_are_refused(table, says):
    """With the key, what was found and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        shield_with({"match": "*", "adaptive": table})
    assert says in str(caught.value)


def test_beyond_the_limit_messages_are_refused_until_answers_come():
    """Not a matter of time."""
    shield = shield_with({"match": "*", "adaptive": {"min": 1, "max": 1}})
    first = permit(shield)
    verdict = shield.admit(message())
    assert isinstance(verdict, OverLimit)
    assert (verdict.policy, verdict.reason, verdict.retry_after_s) == (
        "adaptive",
        "in flight",
        None,
    )
    first.settle(Outcome.DELIVERED)
    assert admits(shield)
