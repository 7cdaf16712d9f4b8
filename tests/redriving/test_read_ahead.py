"""What a source has read ahead comes in turn, and again where it failed."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from shield import Envelope
from shield.redriving.read_ahead import ReadAheadBuffer

LANES = ("a", "b")


def filled(*lanes: str) -> ReadAheadBuffer:
    """One message a lane named; its body is its number among all."""
    in_turn, ends = ReadAheadBuffer(), dict.fromkeys(LANES, 0)
    for number, lane in enumerate(lanes):
        ends[lane] += 10
        in_turn.put(lane, ends[lane] - 1, ends[lane], Envelope("t", b"%d" % number, "kafka"))
    return in_turn


@given(st.lists(st.sampled_from(LANES), max_size=20), st.data())
def test_a_lane_is_passed_up_to_its_first_message_that_is_not_forgotten(lanes, data):
    """In whatever order they are forgotten."""
    in_turn = filled(*lanes)
    taken = in_turn.take(100, 0)
    reached = dict.fromkeys(LANES, 0)
    forgotten = set()
    for one in data.draw(st.permutations(taken)):
        in_turn.forget(one)
        forgotten.add(one)
        for lane in LANES:
            reached[lane] = in_turn.passed(lane) or reached[lane]
            own = [t for t in taken if t.position.lane == lane]
            done = next((i for i, t in enumerate(own) if t not in forgotten), len(own))
            assert reached[lane] == done * 10
            assert in_turn.is_open(lane) == (not forgotten.issuperset(own))


@given(st.lists(st.sampled_from(LANES), min_size=1, max_size=12), st.data())
def test_what_failed_comes_before_all_that_stood_behind_it(lanes, data):
    """Whatever fails, and in whatever order: never a later one before an earlier one."""
    in_turn = filled(*lanes)
    taken = in_turn.take(data.draw(st.integers(1, len(lanes))), 0)
    again = data.draw(st.permutations(taken).map(lambda p: p[: len(p) // 2 + 1]))
    for one in again:
        in_turn.failed(one)
    assert in_turn.untaken == len(lanes) - len(taken) + len(again)
    numbers = [int(one.envelope.body) for one in in_turn.take(100, 0)]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(lanes) - len(taken) + len(again)


def test_a_lane_that_is_dropped_hands_out_nothing_more():
    """What is taken of it comes to nothing; other lanes go on."""
    in_turn = filled("a", "b", "a", "b")
    (first,) = in_turn.take(1, 0)
    in_turn.failed(first)
    in_turn.drop("a")
    assert [one.envelope.body for one in in_turn.take(10, 0)] == [b"1", b"3"]
    assert not in_turn.forget(first)
    in_turn.failed(first)
    assert in_turn.take(10, 0) == []
    assert in_turn.passed("a") is None


def test_who_takes_waits_for_what_is_put():
    """Until the time is over; a failed one wakes as well."""
    in_turn = filled()
    assert in_turn.take(1, 0.01) == []
    threading.Timer(0.02, in_turn.put, ("a", 0, 1, Envelope("t", b"", "kafka"))).start()
    (one,) = in_turn.take(1, 10)
    threading.Timer(0.02, in_turn.failed, (one,)).start()
    assert in_turn.take(1, 10) == [one]


def test_what_is_left_is_passed_and_says_where_it_begins():
    """So that what is remembered goes on behind it, and nothing is forgotten before it."""
    in_turn = filled("a", "a", "a", "b")
    first, second, third, _ = in_turn.take(10, 0)
    in_turn.forget(first)
    assert in_turn.leave(third)
    assert in_turn.leave(second)
    assert in_turn.passed("a") == third.position.after
    assert in_turn.stays_from("a") == second.position.begins
    assert in_turn.stays_from("b") is None
    assert in_turn.is_open("a")
    in_turn.drop("a")
    assert not in_turn.leave(third)
    assert in_turn.stays_from("a") is None
