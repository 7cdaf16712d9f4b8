"""GCRA against what it promises, and against a dictionary that never forgets."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield.algorithms.gcra import TOLERANCE_S, Gcra

KEYS = st.sampled_from("abc")
GAPS = st.sampled_from([0, 1, 2, 3, 5, 8, 13]).map(lambda eighths: eighths / 8)
"""Sums of them are exact in floats: what is compared does not hang on the last bit."""


class Reference:
    """The algorithm as its paper has it: one TAT a key, for ever."""

    def __init__(self, rate: float, burst: float) -> None:
        self.period, self.burst, self.tau = 1 / rate, burst, burst / rate
        self.tats: dict[str, float] = {}

    def wait_s(self, key: str, cost: float, now: float) -> float:
        tat = max(now, self.tats.get(key, 0.0))
        after = tat if cost > self.burst else tat + cost * self.period
        return after - now - self.tau - TOLERANCE_S

    def take(self, key: str, cost: float, now: float) -> None:
        self.tats[key] = max(now, self.tats.get(key, 0.0)) + cost * self.period

    def give_back(self, key: str, cost: float) -> None:
        self.tats[key] -= cost * self.period


def admitted(gcra: Gcra, arrivals: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Offer costs after gaps to one key; return when which were admitted."""
    now, taken = 1000.0, []
    for gap, cost in arrivals:
        now += gap
        if gcra.wait_s("k", cost, now) <= 0:
            gcra.take("k", cost, now)
            taken.append((now, cost))
    return taken


@given(
    rate=st.sampled_from([1, 2, 4, 8]),
    burst=st.integers(1, 10),
    arrivals=st.lists(st.tuples(GAPS, st.integers(1, 10)), max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_no_window_admits_more_than_burst_and_rate(rate, burst, arrivals):
    """In any window: burst + rate * window, whatever the costs, as long as each fits the burst."""
    taken = admitted(Gcra(rate, burst), [(gap, min(cost, burst)) for gap, cost in arrivals])
    for first, (start, _) in enumerate(taken):
        total = 0
        for end, cost in taken[first:]:
            total += cost
            assert total <= burst + rate * (end - start + TOLERANCE_S)


@given(
    rate=st.sampled_from([1, 2, 4, 8]),
    burst=st.integers(1, 4),
    arrivals=st.lists(st.tuples(GAPS, st.integers(1, 40)), max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_oversize_items_are_one_more_at_the_most(rate, burst, arrivals):
    """Beyond that bound a window holds no more than the last item that was larger than a burst."""
    taken = admitted(Gcra(rate, burst), arrivals)
    for first, (start, _) in enumerate(taken):
        total = largest = 0
        for end, cost in taken[first:]:
            total += cost
            largest = max(largest, cost if cost > burst else 0)
            assert total <= burst + rate * (end - start + TOLERANCE_S) + largest


@given(st.integers(2, 50), st.integers(1, 5))
def test_an_oversize_item_is_admitted_out_of_debt_and_carries_its_own(cost, burst):
    """It never hangs: admitted while the key is not in debt, it delays what follows by its size."""
    gcra = Gcra(1.0, burst)
    cost += burst
    assert gcra.wait_s("k", cost, 1000.0) <= 0
    gcra.take("k", cost, 1000.0)
    assert gcra.wait_s("k", 1, 1000.0) == pytest.approx(cost + 1 - burst, abs=1e-5)
    assert gcra.wait_s("k", cost, 1000.0) == pytest.approx(cost - burst, abs=1e-5)


@given(
    st.lists(st.tuples(KEYS, st.integers(1, 12), GAPS), max_size=30),
    st.lists(st.tuples(KEYS, st.integers(1, 12)), max_size=10),
)
def test_asking_changes_nothing(taken, asked):
    """Whatever is asked in between, levels stay as they were."""
    asking, other, now = Gcra(2.0, 5), Gcra(2.0, 5), 1000.0
    for key, cost, gap in taken:
        now += gap
        for gcra in (asking, other):
            if gcra.wait_s(key, cost, now) <= 0:
                gcra.take(key, cost, now)
        for each, more in asked:
            asking.wait_s(each, more, now)
        for each in "abc":
            assert asking.wait_s(each, 1, now) == other.wait_s(each, 1, now)


@given(st.lists(st.tuples(KEYS, st.integers(1, 8), GAPS), max_size=30), KEYS, st.integers(1, 8))
def test_what_is_given_back_at_once_is_as_if_never_taken(before, key, cost):
    """A charge that is undone leaves every level as it was."""
    gcra, other, now = Gcra(2.0, 5), Gcra(2.0, 5), 1000.0
    for each, some, gap in before:
        now += gap
        for one in (gcra, other):
            if one.wait_s(each, some, now) <= 0:
                one.take(each, some, now)
    if gcra.wait_s(key, cost, now) <= 0:
        gcra.take(key, cost, now)
        gcra.give_back(key, cost)
    for each in "abc":
        assert gcra.wait_s(each, 1, now) == other.wait_s(each, 1, now)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(1, 30), GAPS, st.booleans()), max_size=80
    ),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 6),
)
@settings(max_examples=500, deadline=None)
def test_forgetting_idle_keys_is_not_seen(steps, rate, burst):
    """At every step all waits are those of a dictionary that keeps every key, debts included."""
    gcra, reference, now = Gcra(rate, burst), Reference(rate, burst), 1000.0
    charged: list[tuple[str, int]] = []
    for key, cost, gap, back in steps:
        now += gap
        if back and charged:
            each, some = charged.pop()
            gcra.give_back(each, some)
            reference.give_back(each, some)
        if gcra.wait_s(key, cost, now) <= 0:
            gcra.take(key, cost, now)
            reference.take(key, cost, now)
            charged.append((key, cost))
        for each in "abcdef":
            for some in (1, burst, burst + 1):
                known, right = gcra.wait_s(each, some, now), reference.wait_s(each, some, now)
                assert known == right


def test_a_key_that_is_idle_is_forgotten():
    """After two turns without a charge nothing of it is left."""
    gcra = Gcra(10.0, 10)
    for number in range(100):
        gcra.take(number, 1, 1000.0)
    assert len(gcra) == 100
    gcra.take("k", 1, 1001.5)
    gcra.take("k", 1, 1003.0)
    assert len(gcra) == 1


def test_a_debt_outlives_the_turns():
    """An item of ten bursts is remembered until ten bursts' time has passed."""
    gcra = Gcra(1.0, 1)
    gcra.take("debtor", 10, 1000.0)
    for second in range(1, 9):
        gcra.take("other", 1, 1000.0 + second)
        wait_s = gcra.wait_s("debtor", 1, 1000.0 + second)
        assert wait_s == pytest.approx(10 - second, abs=1e-5)


def test_a_debt_that_was_given_back_does_not_come_again():
    """Not even when it is given back a turn after it was charged."""
    gcra = Gcra(1.0, 1)
    gcra.take("debtor", 10, 1000.0)
    gcra.take("other", 1, 1001.0)
    gcra.give_back("debtor", 10)
    gcra.take("other", 1, 1002.0)
    assert gcra.wait_s("debtor", 1, 1002.0) <= 0


def test_a_key_used_in_two_turns_is_counted_once():
    """Keys are what max_keys bounds, not how often they were used."""
    gcra = Gcra(1.0, 1, max_keys=3)
    for key in "abc":
        gcra.take(key, 1, 1000.0)
    for key in "abc":
        gcra.take(key, 1, 1001.5)
    assert len(gcra) == 3


@given(st.lists(st.tuples(st.integers(0, 50), GAPS), max_size=200))
@settings(max_examples=100, deadline=None)
def test_there_are_never_more_than_max_keys(steps):
    """Beyond it new keys share one level: one more entry."""
    gcra, now = Gcra(1.0, 2, max_keys=10), 1000.0
    for key, gap in steps:
        now += gap
        if gcra.wait_s(key, 1, now) <= 0:
            gcra.take(key, 1, now)
        assert len(gcra) <= 11


def test_keys_beyond_max_keys_share_one_quota():
    """They are limited together, and those there before them are not touched."""
    gcra = Gcra(1.0, 2, max_keys=1)
    gcra.take("first", 1, 1000.0)
    gcra.take("second", 1, 1000.0)
    gcra.take("third", 1, 1000.0)
    assert gcra.wait_s("fourth", 1, 1000.0) > 0
    assert gcra.wait_s("first", 1, 1000.0) <= 0


def test_what_a_forgotten_key_gets_back_is_nothing():
    """Its charge has drained; nobody gets credit for it, and it is not remembered again."""
    gcra = Gcra(1.0, 1)
    gcra.take("early", 1, 1000.0)
    gcra.take("x", 1, 1003.0)
    gcra.give_back("early", 1)
    assert len(gcra) == 1


def test_a_charge_on_the_shared_level_is_given_back_to_it():
    """Also keys beyond max_keys get back what they did not use."""
    gcra = Gcra(1.0, 1, max_keys=1)
    gcra.take("first", 1, 1000.0)
    gcra.take("second", 1, 1000.0)
    assert gcra.wait_s("third", 1, 1000.0) > 0
    gcra.give_back("second", 1)
    assert gcra.wait_s("third", 1, 1000.0) <= 0


def test_a_key_of_its_own_gives_nothing_to_the_shared_level():
    """A charge of its own is given back to it alone, whoever shares beside it."""
    gcra = Gcra(1.0, 1, max_keys=1)
    gcra.take("own", 1, 1000.0)
    gcra.take("sharing", 1, 1000.0)
    gcra.give_back("own", 1)
    assert gcra.wait_s("own", 1, 1000.0) <= 0
    assert gcra.wait_s("other", 1, 1000.0) > 0


def test_a_key_that_is_forgotten_gives_nothing_to_the_shared_level():
    """Its charge has drained; those that share one have no credit of it."""
    gcra = Gcra(1.0, 1, max_keys=1)
    gcra.take("early", 1, 1000.0)
    gcra.take("own", 1, 1003.0)
    gcra.take("sharing", 1, 1003.0)
    gcra.give_back("early", 1)
    assert gcra.wait_s("other", 1, 1003.0) > 0


def test_time_that_stands_still_or_is_zero_is_no_trouble():
    """A clock that starts at nought has full bursts, too."""
    gcra = Gcra(1.0, 2)
    for _ in range(2):
        assert gcra.wait_s("k", 1, 0.0) <= 0
        gcra.take("k", 1, 0.0)
    assert gcra.wait_s("k", 1, 0.0) == pytest.approx(1.0, abs=1e-5)


def test_waits_are_finite():
    """There is no item for which the answer is never."""
    gcra = Gcra(1.0, 1)
    gcra.take("k", 10**9, 1000.0)
    assert math.isfinite(gcra.wait_s("k", 10**9, 1000.0))


MILLION = """
import psutil
from shield.algorithms.gcra import Gcra
process = psutil.Process()
keys = [b"customer-%07d" % n for n in range(1_000_000)]
before = process.memory_info().rss
gcra = Gcra(100.0, 100.0)
for key in keys:
    gcra.take(bytes(bytearray(key)), 1, 1000.0)
print(len(gcra), (process.memory_info().rss - before) // 10**6)
"""


def test_a_million_live_keys_fit_into_150_megabytes():
    """Each charged once; keys and levels together, measured in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", MILLION], capture_output=True, text=True, check=True
    )
    keys, megabytes = map(int, run.stdout.split())
    assert keys == 1_000_000
    assert megabytes < 150
