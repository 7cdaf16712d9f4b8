"""What is handed over and not committed: runs, commits that cut them, and what goes back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import Delivery, Permit, Shield
from shield_kafka.consuming.in_flight import MOST_RUNS, Outstanding, PermitRun
from tests.making import counts, shield_with

BOUND = {"name": "in", "match": "*", "direction": "consume", "in_flight": {"messages": 10_000}}


@pytest.fixture
def shield() -> Shield:
    return shield_with(BOUND)


@pytest.fixture
def handed(shield) -> Outstanding:
    return Outstanding(shield, SimpleNamespace())


def run(
    shield: Shield, first: int, end: int, messages: int | None = None, **more: Any
) -> PermitRun:
    """Admit a run of records."""
    messages = end - first if messages is None else messages
    permit = shield.engine.receive_run(Delivery("t", messages * 10, "c", messages=messages))
    assert permit is not None
    return PermitRun(first, end, permit, joins=more.get("joins", True))


def in_use(shield: Shield) -> tuple[int, int]:
    """What the bound holds, in messages and bytes."""
    bound = shield.rules[0].policies[0]._bound
    shield.ledger()  # picks up what was answered
    return bound.messages, bound.size


def test_a_commit_settles_what_is_below_its_offset(shield, handed):
    """Runs whole, and of the one that it cuts the part; the rest stays in flight."""
    handed.add(run(shield, 0, 10))
    handed.add(run(shield, 10, 20))
    handed.done(13)
    assert counts(shield.ledger()) == {"offered": 20, "delivered": 13, "in_flight": 7}
    assert in_use(shield) == (7, 70)
    handed.done(13)
    handed.done(5)
    assert shield.ledger().delivered == 13
    handed.done(100)
    assert counts(shield.ledger()) == {"offered": 20, "delivered": 20}
    assert not handed


def test_of_a_compacted_topic_a_part_is_taken_by_its_offsets(shield, handed):
    """Offsets are missing; the whole run counts exactly, its parts as if they were even."""
    handed.add(run(shield, 100, 200, messages=10))
    handed.done(150)
    assert shield.ledger().delivered == 5
    handed.done(200)
    assert counts(shield.ledger()) == {"offered": 10, "delivered": 10}


def test_after_a_seek_back_a_commit_settles_both_times(shield, handed):
    """The record was handed over twice, and is offered twice."""
    handed.add(run(shield, 50, 60))
    handed.add(run(shield, 0, 10))
    handed.done(10)
    assert counts(shield.ledger()) == {"offered": 20, "delivered": 10, "in_flight": 10}
    handed.done(60)
    assert shield.ledger().in_flight == 0


def test_what_is_lost_has_failed(shield, handed):
    """Its next owner gets it again."""
    handed.add(run(shield, 0, 10))
    handed.done(4)
    handed.lost()
    assert counts(shield.ledger()) == {"offered": 10, "delivered": 4, "failed": 6}
    assert in_use(shield) == (0, 0)


def test_what_is_taken_back_is_given_back():
    """It was admitted and not handed over: the quota has it again, for when it is fetched anew."""
    quota = {"rate": "10/h", "burst": 10}
    shield = shield_with({"name": "in", "match": "*", "direction": "consume", "quota": quota})
    handed = Outstanding(shield, SimpleNamespace())
    handed.add(run(shield, 0, 10))
    handed.take_back(4, 10)
    assert counts(shield.ledger()) == {"offered": 10, "in_flight": 4, "failed": 6}
    handed.add(run(shield, 4, 10))
    assert shield.engine.receive_run(Delivery("t", 10, "c", messages=1)) is None
    handed.done(10)
    assert counts(shield.ledger()) == {"offered": 16, "delivered": 10, "failed": 6}


def test_who_never_commits_keeps_a_bounded_number_of_runs(shield, handed):
    """Neighbours become one; a commit still cuts it where it falls."""
    for first in range(0, 3000, 3):
        handed.add(run(shield, first, first + 3))
    assert len(handed._runs) <= MOST_RUNS
    handed.done(2900)
    assert counts(shield.ledger()) == {"offered": 3000, "delivered": 2900, "in_flight": 100}


def test_what_policies_know_one_by_one_is_never_joined(shield, handed):
    """Each keeps its own permit."""
    for offset in range(2 * MOST_RUNS):
        handed.add(run(shield, offset, offset + 1, joins=False))
    assert len(handed._runs) == 2 * MOST_RUNS
    handed.done(MOST_RUNS)
    assert shield.ledger().delivered == MOST_RUNS


STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 50)),
    st.tuples(st.just("commit"), st.integers(0, 600)),
    st.tuples(st.just("back"), st.integers(0, 600)),
)


@given(st.lists(STEPS, max_size=60))
def test_whatever_is_committed_in_whatever_parts_the_books_balance(steps):
    """Below the highest commit all is delivered, above it nothing is but what went back."""
    shield = shield_with(BOUND)
    handed = Outstanding(shield, SimpleNamespace())
    end = committed = 0
    for step, number in steps:
        if step == "add":
            handed.add(run(shield, end, end + number))
            end += number
        elif step == "commit":
            handed.done(min(number, end))
            committed = max(committed, min(number, end))
        elif committed <= number < end:
            handed.take_back(number, end)
            end = number
        ledger = shield.ledger()
        assert ledger.balanced
        assert (ledger.delivered, ledger.in_flight) == (committed, end - committed)
        assert in_use(shield)[0] == end - committed
    handed.all_done()
    assert shield.ledger().in_flight == 0
    assert isinstance(shield.engine.receive(Delivery("t", 1, "c")), Permit)
