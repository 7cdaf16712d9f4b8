"""What is forgotten beyond where all is: kept as text, and found again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.algorithms import spans
from shield.envelope import Envelope
from shield.redriving.read_ahead import ReadAheadSource
from shield.selection import Mark, Selection

OFFSETS = st.sets(st.integers(0, 300))


@given(OFFSETS)
def test_merged_spans_cover_what_they_were_made_of(offsets):
    """And nothing else."""
    merged = spans.merged([(offset, offset + 1) for offset in offsets], 0)
    assert {offset for offset in range(302) if spans.covers(merged, offset)} == offsets


@given(OFFSETS, st.integers(20, 200))
def test_as_text_they_are_the_same_or_the_first_of_them(offsets, most):
    """So many as fit."""
    merged = spans.merged([(offset, offset + 1) for offset in offsets], 0)
    text = spans.text_of(merged, 0, most)
    assert len(text) <= most
    assert spans.read(text, 0) == merged[: len(spans.read(text, 0))]
    assert spans.read(spans.text_of(merged, 0, 10_000), 0) == merged


@given(st.text(max_size=50) | st.binary(max_size=50).map(lambda data: data.decode("latin-1")))
def test_what_is_not_of_our_making_says_nothing_and_raises_nothing(text):
    """It stands where others may write."""
    spans.read(text, 0)
    assert Mark.read(5, f"{text}|").at >= 5


class Log(ReadAheadSource):
    """Remembers a position as its text."""

    def close(self):
        """Nothing to do."""


@pytest.mark.parametrize("unsent", [{0}, {3, 4}, {9}, {0, 2, 4, 6, 8}, set(range(10))])
def test_what_was_sent_behind_what_was_not_does_not_come_again(unsent):
    """A position that is read back covers exactly what was forgotten."""
    log, envelope = Log(), Envelope("t", b"", "kafka")
    for offset in range(10):
        log.in_turn.put("lane", offset, offset + 1, envelope)
    for taken in log.take(10, 0.0):
        if taken.position.begins not in unsent:
            log.forget(taken)
    position = log.moved("lane") or Mark(0)
    again = Mark.read(position.at, position.text)
    assert {n for n in range(10) if not again.covers(n, envelope)} == unsent
    assert log.moved("lane") is None


def test_what_stays_and_what_is_apart_are_both_remembered():
    """The selection's own reach, and what was sent beyond it."""
    log, envelope = Log(), Envelope("t", b"", "kafka", marks=(("shield-rule", "a"),))
    log.select(Selection("rule==b", anywhere=True))
    for offset in range(6):
        log.in_turn.put("lane", offset, offset + 1, envelope)
    taken = log.take(6, 0.0)
    log.leave(taken[0])
    log.forget(taken[1])
    log.forget(taken[3])
    position = log.moved("lane")
    again = Mark.read(position.at, position.text)
    assert [n for n in range(6) if not again.covers(n, envelope)] == [0, 2, 4, 5]
