"""`retry N`: after pauses, behind those who stand in line, within a budget of the process."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shield
from shield import Permit, Policy, Shield
from shield.algorithms.retry_budget import AT_LEAST, SAMPLE_EVERY_S, SHARE, WINDOW_S, RetryBudget
from shield.chain.runner import RETRY_FIRST_S, RETRY_LONGEST_S, retry
from shield.clock import SYSTEM_CLOCK
from shield.testing import FakeClient
from tests.making import Kinds, counts, over, permit, shield_with


class Fickle(Policy):
    """Refuses so many times as it says, then admits; notes when it was asked."""

    refusals = 0
    retry_after_s: float | None = None

    def __init__(self, settings, rule, name):
        super().__init__(settings, rule, name)
        self.asked: list[float] = []

    def check(self, message, now):
        if self.asked[-1:] != [now]:
            self.asked.append(now)
        if len(self.asked) > self.refusals:
            return None
        return self.refuse("not yet", self.retry_after_s)


def fickle(refusals, *chain, retry_after_s=None):
    kind = type("Some", (Fickle,), {"refusals": refusals, "retry_after_s": retry_after_s})
    rule = {"match": "*", "fickle": {}, "over_limit": list(chain) or ["raise"]}
    one = shield_with(rule, plugins=[Kinds({"fickle": kind})])
    return FakeClient(one), one.rules[0].policies[0]


def test_a_message_that_is_admitted_the_second_time_is_sent():
    """The caller waits; the future is the send's own."""
    client, policy = fickle(2, "retry 3", "drop")
    future = client.publish("orders", b"1")
    client.ack()
    assert shield.fate(future) == "sent"
    assert len(policy.asked) == 3
    assert counts(client.shield.ledger()) == {"offered": 1, "delivered": 1}
    assert sum(client.shield.ledger().over_limit.values()) == 1


def test_after_its_last_try_it_declines():
    """Asked once by admission and N times by the action; then the chain goes on."""
    client, policy = fickle(100, "retry 3", "drop")
    assert shield.fate(client.publish("orders", b"1")) == "dropped"
    assert len(policy.asked) == 1 + 3


def test_its_pauses_are_full_jitter_and_grow():
    """Each between nothing and twice what the one before might have been, five seconds at most."""
    longest = [0.0] * 9
    client, policy = fickle(10**9, "retry 9", "drop")
    client.shield.engine.retries = Unlimited()
    for _ in range(300):
        policy.asked.clear()
        retry(over(client.shield), 9)
        pauses = [b - a for a, b in zip(policy.asked, policy.asked[1:], strict=False)]
        longest = [max(pair) for pair in zip(longest, pauses, strict=True)]
    bounds = [min(RETRY_LONGEST_S, RETRY_FIRST_S * 2**n) for n in range(9)]
    for found, bound in zip(longest, bounds, strict=True):
        assert 0.9 * bound < found <= bound + 0.001


class Unlimited(RetryBudget):
    def __init__(self):
        super().__init__(lambda: 0)

    def left(self, now):
        return True

    def spend(self, now):
        return True


def test_it_never_asks_before_the_policy_says():
    """`retry_after` is the shortest pause, each time anew."""
    client, policy = fickle(3, "retry 5", retry_after_s=2.5)
    client.publish("orders", b"1")
    pauses = [b - a for a, b in zip(policy.asked, policy.asked[1:], strict=False)]
    assert pauses == pytest.approx([2.5, 2.5, 2.5], abs=0.001)
    assert min(pauses) >= 2.5


def test_a_quotas_own_time_is_enough_for_one_try():
    """No try is lost to rounding."""
    quota = {"match": "*", "quota": {"rate": "1/h", "burst": 1}, "over_limit": ["retry 1", "drop"]}
    client = FakeClient(shield_with(quota))
    for _ in range(20):
        assert shield.fate(client.publish("orders", b"1")) == "sent"


def test_what_will_never_be_admitted_is_not_retried():
    """No time passes."""
    client, policy = fickle(100, "retry 5", "drop", retry_after_s=float("inf"))
    client.publish("orders", b"1")
    assert (client.shield.clock.waits, len(policy.asked)) == (0, 1)


def test_where_nobody_may_wait_it_declines():
    """Behind an overflow that failed, on the thread that answers sends."""
    client, _ = fickle(2, "overflow elsewhere", "retry 3", "drop")
    future = client.publish("orders", b"1")
    client.fail()
    assert shield.fate(future) == "dropped"
    assert client.shield.clock.waits == 0


def test_who_stands_in_line_comes_first():
    """A retry does not overtake one that waits; when that is gone it is admitted."""
    one = shield_with({"match": "*", "quota": {"rate": "1/s", "burst": 1}})
    permit(one)
    waiting, retrying = over(one), over(one)
    waiter = one.engine.line_up(waiting, lambda: None)
    one.clock.advance(1.0)
    assert one.engine.ask_once(retrying) is None
    assert isinstance(one.engine.ask_again(waiter), Permit)
    one.clock.advance(1.0)
    assert isinstance(one.engine.ask_once(retrying), Permit)
    assert not one.engine.lines


def test_it_stands_in_no_line():
    """So that it holds nobody back while it pauses."""
    one = shield_with({"match": "*", "quota": {"rate": "1/s", "burst": 1}})
    permit(one)
    claim = over(one)
    seen = []
    wait = one.clock.wait
    one.clock.wait = lambda event, s: (seen.append(bool(one.engine.lines)), wait(event, s))[1]
    assert isinstance(retry(claim, 1), Permit)
    assert seen == [False]


# --- the budget ---------------------------------------------------------------------------------


def test_without_a_budget_it_declines_at_once():
    """Three in a second, whatever was sent; the fourth does not even wait."""
    client, _ = fickle(10**9, "retry 1", "drop")
    retries = client.shield.engine.retries
    granted = [retries.spend(client.shield.clock.now()) for _ in range(4)]
    assert granted == [True, True, True, False]
    client.publish("orders", b"1")
    assert client.shield.clock.waits == 0


def test_all_shields_of_a_process_share_one_budget():
    """Those of one clock, as all are outside tests."""
    first, second = Shield(), Shield({"rules": [{"match": "*", "quota": "1/s"}]})
    assert first.clock is second.clock is SYSTEM_CLOCK
    assert first.engine.retries is second.engine.retries
    assert shield_with().engine.retries is not first.engine.retries


def test_every_message_offered_counts_as_a_send():
    """Ten retries for a hundred messages, when they come after the first look at the budget."""
    one = shield_with({"match": "*", "quota": "1000000/s"})
    now = one.clock.now()
    assert one.engine.retries.left(now)
    for _ in range(100):
        permit(one)
    assert sum(one.engine.retries.spend(now + SAMPLE_EVERY_S) for _ in range(50)) == 10


sends = st.tuples(st.just("send"), st.integers(1, 400))
retries = st.tuples(st.just("retry"), st.integers(1, 60))
time_passes = st.tuples(st.just("wait"), st.floats(0.0, 6.0))


@given(st.lists(sends | retries | time_passes, max_size=60))
def test_the_budget_is_never_exceeded_in_any_window(story):
    """Of the ten seconds up to any retry: a tenth of what was sent, or three in the last second."""
    now, total = 1000.0, 0
    sent_at: list[tuple[float, int]] = []
    granted: list[float] = []
    budget = RetryBudget(lambda: total)
    for what, amount in story:
        if what == "wait":
            now += amount
        elif what == "send":
            total += amount
            sent_at.append((now, amount))
        for _ in range(amount if what == "retry" else 0):
            left = budget.left(now)
            assert budget.spend(now) == left
            if not left:
                continue
            granted.append(now)
            recent = sum(n for at, n in sent_at if at > now - WINDOW_S - 1e-9)
            in_window = sum(at > now - WINDOW_S for at in granted)
            in_second = sum(at > now - 1.0 for at in granted)
            assert in_window <= SHARE * recent or in_second <= AT_LEAST


@given(st.floats(0.0, 1000.0), st.lists(st.floats(0.0, 5.0), max_size=40))
def test_three_a_second_are_always_granted(start, pauses):
    """However little is sent, and whatever was granted before."""
    now, budget = start, RetryBudget(lambda: 0)
    granted: list[float] = []
    for pause_s in pauses:
        now += pause_s
        if sum(at > now - 1.0 for at in granted) < AT_LEAST:
            assert budget.spend(now)
            granted.append(now)
        else:
            assert not budget.spend(now)


def test_in_steady_traffic_a_tenth_may_be_retried():
    """A thousand a second for a minute, everyone retrying as much as it may."""
    total, granted = 0, 0
    budget = RetryBudget(lambda: total)
    for tenth in range(600):
        total += 100
        granted += sum(budget.spend(tenth * SAMPLE_EVERY_S) for _ in range(100))
    assert 0.09 * total < granted <= SHARE * total + AT_LEAST


def test_a_shield_that_is_gone_leaves_no_more_than_the_rest_has_sent():
    """What it had sent counts no more; the budget is never larger for it."""
    one = shield_with({"match": "*", "quota": "1000000/s"})
    other = Shield({"rules": [{"match": "*", "quota": "1000000/s"}]}, clock=one.clock)
    assert one.engine.retries is other.engine.retries
    assert one.engine.retries.left(one.clock.now())
    for _ in range(1000):
        permit(other)
    del other
    gc.collect()
    one.clock.advance(SAMPLE_EVERY_S)
    assert sum(one.engine.retries.spend(one.clock.now()) for _ in range(50)) == AT_LEAST


def test_how_often_must_be_said():
    """A retry without a number, or of none, is refused."""
    for link, words in (("retry", "times is missing"), ("retry 0", "1 or more")):
        with pytest.raises(shield.SettingsError, match=words):
            shield_with({"match": "*", "over_limit": link})
