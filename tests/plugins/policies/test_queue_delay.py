"""How long what waits may wait: the algorithm alone, and the policy on it."""

from __future__ import annotations

import gc
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield import End, Message, Outcome, OverLimit, Permit, SettingsError, Shield, Signals
from shield.algorithms.codel import Codel
from shield.testing import ManualClock, PolicyContract
from tests.making import counts, message, permit, shield_with

TARGET_S, INTERVAL_S, LONGEST_S = 0.005, 0.1, 0.01


def delay() -> Codel:
    return Codel(TARGET_S, INTERVAL_S, LONGEST_S)


def stand(watched: Codel, now: float, seconds: float = 0.25, delay_s: float = 1.0) -> float:
    """Tell of one delay, a hundred times a second for so long; return when that is over."""
    for step in range(int(seconds * 100)):
        watched.tell(delay_s, now + step / 100)
    return now + seconds


# --- the algorithm ------------------------------------------------------------------------------


def test_it_is_overloaded_when_no_delay_of_an_interval_was_small():
    """Not before the interval is over: until then it may be a burst."""
    watched = delay()
    for step in range(10):
        watched.tell(1.0, step / 100)
        assert not watched.is_overloaded(step / 100)
    watched.tell(1.0, 0.1)
    assert watched.is_overloaded(0.1)


def test_one_small_delay_in_an_interval_ends_it():
    """The queue was nearly empty: it takes up bursts again."""
    watched = delay()
    now = stand(watched, 0.0)
    assert watched.is_overloaded(now)
    watched.tell(TARGET_S, now)
    now = stand(watched, now + 0.01, 0.2)
    assert watched.is_overloaded(now)  # a whole interval of long ones has followed
    watched.tell(0.0, now)
    watched.tell(1.0, now + INTERVAL_S)
    assert not watched.is_overloaded(now + INTERVAL_S)


def test_only_while_it_is_overloaded_anything_is_too_old():
    """And then what has waited longer than the longest, not what has waited just so long."""
    watched = delay()
    assert not watched.is_too_old(100.0, 0.0)
    now = stand(watched, 0.0)
    assert watched.is_too_old(LONGEST_S * 1.01, now)
    assert not watched.is_too_old(LONGEST_S, now)


def test_without_a_longest_it_is_twice_the_target():
    """As in folly."""
    watched = Codel(1.0, 10.0)
    watched.tell(5.0, 0.0)
    watched.tell(5.0, 10.0)
    assert watched.is_too_old(2.01, 10.0)
    assert not watched.is_too_old(2.0, 10.0)


def test_a_queue_that_nothing_is_told_of_is_not_overloaded():
    """Nothing waits in it; what it was before is forgotten within two intervals."""
    watched = delay()
    now = stand(watched, 0.0)
    later = now + 2 * INTERVAL_S + 0.001
    assert not watched.is_overloaded(later)
    watched.tell(1.0, later)
    assert not watched.is_overloaded(later)


def test_one_late_message_now_and_then_is_no_queue():
    """Each comes after an interval in which nothing waited."""
    watched = delay()
    for second in range(100):
        watched.tell(1.0, float(second))
        assert not watched.is_overloaded(float(second))


def test_one_that_stood_longer_than_an_interval_tells_of_it_by_itself():
    """Who looks seldom would otherwise never see his queue stand."""
    watched = delay()
    for second in range(3):
        watched.stood(INTERVAL_S + TARGET_S - 0.001, float(second))
        assert not watched.is_overloaded(float(second))
        watched.stood(INTERVAL_S + TARGET_S + 0.001, second + 0.5)
        assert watched.is_too_old(INTERVAL_S, second + 0.5)


DELAYS = st.floats(0.0, 10.0)
STEPS = st.lists(st.tuples(st.floats(0.0, 0.3), DELAYS), max_size=60)


@given(STEPS)
def test_nothing_is_too_old_unless_all_of_an_interval_was_late(steps):
    """Whatever is told, and when: an overload has an interval of long delays before it."""
    watched = delay()
    now = 0.0
    told = []
    for pause_s, delay_s in steps:
        now += pause_s
        watched.tell(delay_s, now)
        told.append((now, delay_s))
        if watched.is_overloaded(now):
            before = [d for at, d in told if now - 3 * INTERVAL_S <= at < now]
            assert any(d > TARGET_S for d in before)
        assert 0.0 <= watched.pressure(now) <= 1.0


@given(STEPS)
def test_small_delays_alone_shed_nothing(steps):
    """Up to the target, however long it goes on."""
    watched = delay()
    now = 0.0
    for pause_s, delay_s in steps:
        now += pause_s
        watched.tell(min(delay_s, TARGET_S), now)
        assert not watched.is_too_old(1e9, now)


TICK_S = 0.001


def served_after(rate: int, times: float, ticks: int = 1000) -> list[tuple[float, float]]:
    """Simulate a queue that sheds by it; return when each was served, and how long it waited."""
    watched = delay()
    waiting: deque[float] = deque()
    to_come = 0.0
    served = []
    for tick in range(ticks):
        now = tick * TICK_S
        to_come += rate * times
        while to_come >= 1.0:
            to_come -= 1.0
            waiting.append(now)
        for _ in range(rate):
            while waiting:
                watched.tell(now - waiting[0], now)
                if not watched.is_too_old(now - waiting[0], now):
                    break
                waiting.popleft()
            if waiting:
                came = waiting.pop() if watched.is_overloaded(now) else waiting.popleft()
                served.append((now, now - came))
    return served


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.floats(1.05, 8.0))
def test_a_queue_that_sheds_by_it_is_bounded_in_time_at_any_overload(rate, times):
    """No served message has waited longer than it takes to see that the queue stands.

    And the server is never idle: only what is too much is shed.
    """
    served = served_after(rate, times)
    assert max(waited for _, waited in served) <= TARGET_S + 2 * INTERVAL_S + TICK_S
    assert len(served) >= 0.99 * rate * 1000


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.floats(2.0, 8.0))
def test_at_twice_the_load_and_more_what_is_served_is_served_at_once(rate, times):
    """Newest first, once it is seen that the queue stands; nothing has waited for the longest."""
    late = [waited for now, waited in served_after(rate, times) if now > 2 * INTERVAL_S]
    assert max(late) <= LONGEST_S + TICK_S


# --- the policy ---------------------------------------------------------------------------------


class TestQueueDelayPolicy(PolicyContract):
    name = "queue_delay"
    settings = {"target": "5ms", "interval": "100ms", "longest": "10ms"}

    def message(self) -> Message:
        return message(signals=Signals(lambda: 1_000.0))


@pytest.fixture
def own() -> Shield:
    return shield_with({"match": "*", "queue_delay": {}, "over_limit": "drop"})


def late_refusal(own: Shield, held: Permit):
    """Let it wait a second at the head of its queue, asked a hundred times; the last answer."""
    refusal = None
    for step in range(100):
        refusal = held.waited(0.1 + step / 100, own.clock.now())
        own.clock.advance(0.01)
    return refusal


def test_a_message_that_waits_too_long_is_refused_after_all(own):
    """Its charge is given back, and its chain decides; it is in flight until that has ended."""
    held = permit(own, signals=Signals(own.clock.now))
    refusal = late_refusal(own, held)
    assert refusal is not None
    over = held.refuse(refusal)
    assert isinstance(over, OverLimit)
    assert (over.rule.name, over.policy, over.reason) == ("rule-1", "queue_delay", "queue delay")
    assert counts(own.ledger()) == {"offered": 1, "in_flight": 1}
    assert not held.settle(Outcome.DELIVERED)
    over.end(End.DROPPED)
    assert counts(own.ledger()) == {"offered": 1, "dropped": 1}
    assert own.ledger().drops == {("rule-1", "queue_delay", "queue delay"): 1}


def test_a_permit_that_has_its_end_is_not_refused(own):
    """Once is enough."""
    held = permit(own, signals=Signals(own.clock.now))
    refusal = late_refusal(own, held)
    held.cancel()
    assert held.refuse(refusal) is None
    assert counts(own.ledger()) == {"offered": 1, "failed": 1}


def test_what_it_was_charged_is_given_back():
    """It was never sent: its place in flight is free, and its quota."""
    own = shield_with(
        {"match": "*", "in_flight": {"messages": 1}, "quota": "1/h", "queue_delay": {}}
    )
    held = permit(own, signals=Signals(own.clock.now))
    refusal = late_refusal(own, held)
    held.refuse(refusal).end(End.DROPPED)
    permit(own)


def test_each_connection_has_a_queue_of_its_own(own):
    """One that stands says nothing of the others, and is forgotten with its client."""
    held: list[Permit] = []

    def hold(queue: Signals) -> Permit:
        held.append(permit(own, signals=queue))
        return held[-1]

    def stands(queue: Signals) -> bool:
        return own.engine.newest_first(hold(queue), own.clock.now())

    stuck, well = Signals(own.clock.now), Signals(own.clock.now)
    late_refusal(own, hold(stuck))
    hold(well).waited(100.0, own.clock.now())
    found = stands(stuck), stands(well)
    assert found == (True, False)
    for one in held:
        one.cancel()
    held.clear()
    own.engine._core.sent.clear()
    del stuck, one
    gc.collect()
    assert len(own.rules[0].policies[0]._delays) == 1


def test_newcomers_are_admitted_into_a_queue_that_stands_but_not_what_comes_back(own):
    """They are served first; what was set aside would fill it again."""
    signals = Signals(own.clock.now)
    late_refusal(own, permit(own, signals=signals))
    permit(own, signals=signals)
    back = message(signals=signals)
    back.aside = True
    refusal = own.rules[0].policies[0].check(back, own.clock.now())
    assert refusal is not None
    own.clock.advance(refusal.retry_after_s + INTERVAL_S)
    assert own.rules[0].policies[0].check(back, own.clock.now()) is None


def test_what_was_set_aside_before_is_not_shed_again(own):
    """Its owner chose to keep it; it would go round and round."""
    held = permit(own, signals=Signals(own.clock.now))
    held.message.aside = True
    assert held.waits == ()
    assert late_refusal(own, held) is None


def test_what_an_order_keeps_is_left_alone():
    """Also where another rule says so: shed, or overtaken, it would lose its order."""
    own = shield_with({"match": "*", "queue_delay": {}}, {"match": "*", "order": "key"})
    held = permit(own, key=b"k", signals=Signals(own.clock.now))
    assert held.waits == ()
    assert late_refusal(own, held) is None


def test_a_rule_cannot_ask_for_both():
    """Said when it is loaded."""
    with pytest.raises(SettingsError, match=r"rules\[0\].queue_delay: the newest first is not"):
        shield_with({"match": "*", "queue_delay": {}, "order": "key"})


def test_a_rule_for_deliveries_says_how_it_ends():
    """Waiting longer is no end of what has waited too long."""
    received = {"match": "*", "direction": "consume"}
    for chain in ({"over_limit": "wait"}, {"over_limit": "wait 5s"}, {}):
        with pytest.raises(SettingsError, match=r"queue_delay: what has waited too long.*'drop'"):
            shield_with({**received, "queue_delay": {}, **chain})


def test_in_shadow_it_counts_what_leaves_too_late_and_sheds_nothing():
    """Once for each message, however often the queue asks about it, and none is overtaken."""
    own = shield_with({"name": "s", "match": "*", "mode": "shadow", "queue_delay": {}})
    signals = Signals(own.clock.now)
    for number in range(30):
        held = permit(own, signals=signals)
        own.clock.advance(0.01)
        assert held.waited(1.0, own.clock.now()) is None
        assert held.waited(1.0, own.clock.now()) is None
        assert not own.engine.newest_first(held, own.clock.now())
        own.engine.leaves(held, 1.0, own.clock.now())
        held.delivered()
        if number < 9:
            assert not own.ledger().over_limit
    assert 18 <= own.ledger().over_limit["s", "queue_delay", "queue delay"] <= 21
    assert own.ledger().delivered == 30


def test_its_pressure_is_the_smallest_delay_of_the_interval(own):
    """As a part of the longest; none any more when nothing has waited for an interval."""
    signals = Signals(own.clock.now)
    held = permit(own, signals=signals)
    held.waited(0.004, own.clock.now())
    assert own.pressure("rule-1") == pytest.approx(0.4)
    held.waited(0.002, own.clock.now())
    assert own.pressure("rule-1") == pytest.approx(0.2)
    own.clock.advance(INTERVAL_S)
    assert own.pressure("rule-1") == 0.0
    late_refusal(own, held)
    assert own.status()["rule-1"]["queue_delay"]["overloaded"] == 1


def test_a_policy_that_raises_about_a_waiting_message_sheds_nothing(own):
    """It is counted, and the message goes."""

    def fail(*_: object):
        raise RuntimeError("mine")

    own.rules[0].policies[0].check_waiting = fail
    own.rules[0].policies[0].newest_first = fail
    held = permit(own, signals=Signals(own.clock.now))
    assert held.waited(100.0, own.clock.now()) is None
    assert not own.engine.newest_first(held, own.clock.now())
    assert sum(own.plugin_errors.values()) == 2


@pytest.mark.parametrize(
    ("times", "wrong"),
    [
        ({"target": "1s", "interval": "100ms"}, "interval is 0.1 s and target 1 s; allowed is"),
        ({"target": "1s", "interval": "2s", "longest": "10ms"}, "longest is 0.01 s and target"),
        ({"target": 0}, "target"),
        ("5", "target"),
    ],
)
def test_times_that_do_not_fit_together_are_refused(times, wrong):
    """With what was found and what is allowed."""
    with pytest.raises(SettingsError, match=wrong) as caught:
        Shield({"rules": [{"match": "*", "queue_delay": times}]}, clock=ManualClock())
    assert "rules[0].queue_delay" in str(caught.value)


def test_a_bare_time_is_the_target():
    """With the other defaults."""
    own = shield_with({"match": "*", "queue_delay": "20ms"})
    assert own.rules[0].policies[0].settings.target == 0.02
