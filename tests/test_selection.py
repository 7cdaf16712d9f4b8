"""How far a log is redriven, where single messages cannot be forgotten: nothing is lost by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.selection import Mark, Selection
from tests.memory import diverted

RULES = ("a", "b", "c")
SELECTIONS = [Selection(None, 5), *(Selection(f"rule=={rule}", 5) for rule in RULES)]
SELECTIONS.append(Selection("rule!=a", 2))


@given(
    log=st.lists(st.tuples(st.sampled_from(RULES), st.integers(1, 6)), max_size=20),
    runs=st.lists(st.tuples(st.sampled_from(SELECTIONS), st.integers(0, 20)), max_size=6),
)
def test_each_message_is_brought_back_once_and_none_is_passed_over(log, runs):
    """Whatever is selected, and wherever each run is broken off, also through its text."""
    messages = [diverted(n, rule=rule, attempt=tried) for n, (rule, tried) in enumerate(log)]
    position, back = Mark(0), []
    for selection, most in [*runs, *((one, 99) for one in SELECTIONS)]:
        left, upto = None, 0
        for offset, envelope in enumerate(messages):
            if offset < position.at or position.covers(offset, envelope):
                continue
            if not selection.means(envelope):
                left = offset if left is None else left
            elif most == 0:
                break
            else:
                most -= 1
                back.append(offset)
            upto = offset + 1
        if upto:
            position = position.moved(upto if left is None else min(left, upto), selection, upto)
        position = Mark.read(position.at, position.text)
    assert sorted(back) == [n for n, (_, tried) in enumerate(log) if tried < 5]
    assert len(back) == len(set(back))


def test_a_selection_that_does_not_ask_for_it_means_what_says_where_it_was_going():
    """What has no such header is meant where all goes to one place."""
    lost = replace(diverted(1), marks=())
    assert not Selection().means(lost)
    assert Selection(anywhere=True).means(lost)


@pytest.mark.parametrize("text", ["", "?", "[]", "{}", "[[1]]", '[["rule=",null,false,3]]', "[3]"])
def test_a_text_that_says_nothing_is_none(text):
    """Of another program, or a later version: then messages may come back twice."""
    assert Mark.read(7, text) == Mark(7)


def test_the_text_is_short_enough_for_a_commit():
    """The oldest selections are left out: what they meant may come back twice."""
    position = Mark(0)
    for number in range(500):
        position = position.moved(0, Selection(f"rule==a-rule-of-some-length-{number}"), 10)
    assert len(position.text) <= 4000
    read = Mark.read(0, position.text)
    assert read.done[-1][0].where == "rule==a-rule-of-some-length-499"
