"""Signals: what a broker tells a client, kept for policies to read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import Message, Signals
from shield.signals import BASELINE_S, WINDOW_S, AnswerCounts, Latency

COUNTS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=60
)


def test_what_is_not_known_is_none():
    """Never zero: a client that says nothing is not a client with nothing in flight."""
    signals = Signals()
    values = signals.blocked, signals.in_flight, signals.window_used
    assert values == (None, None, None)
    assert (signals.queue_messages, signals.queue_bytes) == (None, None)
    assert signals.answers.share("nacks", 0.0) is None
    assert (signals.latency.recent, signals.latency.baseline) == (None, None)
    assert signals.latency.over_baseline(0.0) is None


def test_a_message_has_no_signals_unless_its_client_gives_some():
    """Kafka's producer gives none yet."""
    signals = Signals()
    assert Message("orders", 1).signals is None
    assert Message("orders", 1, signals=signals).signals is signals


def test_threads_that_queue_at_once_are_all_counted():
    """What goes in and out again leaves nothing."""
    signals = Signals()

    def work(_: int) -> None:
        for _ in range(2000):
            signals.queued(1, 10)
            signals.queued(-1, -10)
        signals.queued(1, 7)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert (signals.queue_messages, signals.queue_bytes) == (8, 56)


# --- answers --------------------------------------------------------------------------------------


def test_a_share_is_of_the_answers_of_ten_seconds():
    """Older ones are forgotten, a second's worth at a time."""
    answers = AnswerCounts()
    answers.count(100.0, 10, nacks=10)
    answers.count(105.0, 30, returns=3)
    assert answers.share("nacks", 105.0) == pytest.approx(0.25)
    assert answers.share("returns", 105.0) == pytest.approx(0.075)
    assert answers.share("nacks", 110.0) == 0.0
    assert answers.share("nacks", 115.0) is None


def test_a_share_of_too_few_answers_is_not_known():
    """One nacked message alone is no 100%."""
    answers = AnswerCounts()
    answers.count(100.0, 19, nacks=19)
    assert answers.share("nacks", 100.0, minimum=20) is None
    answers.count(100.0, 1)
    assert answers.share("nacks", 100.0, minimum=20) == pytest.approx(0.95)


@given(COUNTS)
def test_a_share_is_exact_over_its_slices(counts):
    """It counts all answers of the last nine seconds and none older than eleven."""
    answers, now, seen = AnswerCounts(), 0.0, []
    for after_s, good, bad in counts:
        now += after_s
        answers.count(now, good + bad, nacks=bad)
        seen.append((now, good, bad))
    share = answers.share("nacks", now)
    if share is not None:
        kept = [each for each in seen if each[0] > now - WINDOW_S + 1]
        old = [each for each in seen if now - WINDOW_S - 1 < each[0] <= now - WINDOW_S + 1]
        surely, maybe = sum(bad for _, _, bad in kept), sum(bad for _, _, bad in old)
        total = sum(good + bad for _, good, bad in kept)
        most = total + sum(good + bad for _, good, bad in old)
        assert surely / most <= share + 1e-9
        assert share * max(total, 1) <= surely + maybe + 1e-9


@given(COUNTS, st.floats(0, 0.99), st.integers(1, 30))
def test_the_time_above_is_when_it_ends_and_no_sooner(counts, above, minimum):
    """Just before it the share is above the limit, just after it is not; ten seconds at most."""
    answers, now = AnswerCounts(), 0.0
    for after_s, good, bad in counts:
        now += after_s
        answers.count(now, good + bad, nacks=bad)
    for_s = answers.above_for_s("nacks", above, minimum, now)
    assert 0 <= for_s <= WINDOW_S + 1e-9
    if for_s > 0:
        share = answers.share("nacks", now, minimum)
        assert share is not None
        assert share > above
        later = answers.share("nacks", now + for_s + 1e-6, minimum)
        assert later is None or later <= above
        if for_s > 1e-3:
            assert answers.above_for_s("nacks", above, minimum, now + for_s - 1e-3) > 0


# --- latency --------------------------------------------------------------------------------------


def test_latency_is_a_multiple_of_its_baseline():
    """A broker that takes three times as long soon shows three times the baseline."""
    latency = Latency()
    for n in range(50):
        latency.add(float(n) / 10, 0.010)
    assert latency.over_baseline(5.0) == pytest.approx(1.0)
    for n in range(50):
        latency.add(5 + float(n) / 10, 0.030)
    assert latency.over_baseline(10.0) == pytest.approx(3.0, rel=0.01)


def test_latency_without_recent_samples_is_not_known():
    """Ten seconds without an answer say nothing of how long one takes; the next begins anew."""
    latency = Latency()
    latency.add(0.0, 0.5)
    latency.add(0.0, 0.1)
    assert latency.over_baseline(9.0) is not None
    assert latency.over_baseline(10.0) is None
    latency.add(20.0, 0.2)
    assert latency.over_baseline(20.0) == pytest.approx(2.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(1e-4, 10)), min_size=1, max_size=80))
def test_the_baseline_is_the_lowest_of_the_last_minutes(samples):
    """At most every sample of five minutes, and the lowest one of ten where answers keep coming."""
    latency, now, seen = Latency(), 0.0, []
    for after_s, sample_s in samples:
        now += after_s
        latency.add(now, sample_s)
        seen.append((now, sample_s))
    assert latency.baseline is not None
    assert latency.baseline <= min(s for at, s in seen if at > now - BASELINE_S)
    assert latency.baseline in {s for _, s in seen}
    assert latency.baseline >= min(s for at, s in seen if at >= now - 3 * BASELINE_S)
