"""The consumers' helper: what has been here before, by the id that Shield gave it."""

from __future__ import annotations

from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import Deduplicator, Message

Record = namedtuple("Record", "headers")


def named(number: int) -> list[tuple[str, bytes]]:
    return [("shield-message-id", b"%d" % number)]


@pytest.mark.parametrize(
    "message",
    [
        Record([("own", b"x"), ("shield-message-id", b"1")]),
        Record({"shield-message-id": "1"}),
        {"shield-message-id": "1"},
        [("shield-message-id", b"1")],
        Message("orders", 1, headers={"shield-message-id": "1"}),
    ],
    ids=["kafka-python", "pika", "mapping", "pairs", "message"],
)
def test_the_second_of_one_id_was_seen(message):
    """However its client has the headers."""
    known = Deduplicator()
    assert not known.seen(message)
    assert known.seen(message)
    assert known.seen(named(1))


@pytest.mark.parametrize("message", [None, {}, [], Record(None), {"own": "1"}])
def test_what_was_never_set_aside_is_never_seen(message):
    """It has no id, and takes no room."""
    known = Deduplicator()
    assert not known.seen(message)
    assert not known.seen(message)
    assert len(known) == 0


@given(st.lists(st.integers(0, 8)), st.integers(1, 5))
def test_it_remembers_the_last_so_many(numbers, most):
    """One that was seen again counts as new."""
    known, expected = Deduplicator(most), []
    for number in numbers:
        assert known.seen(named(number)) is (number in expected)
        expected = [*(n for n in expected if n != number), number][-most:]
        assert len(known) == len(expected)


def test_what_is_forgotten_comes_again():
    """For a message whose processing has failed."""
    known = Deduplicator()
    known.seen(named(1))
    known.forget(named(1))
    known.forget(named(2))
    known.forget(None)
    assert not known.seen(named(1))


def test_of_many_threads_one_is_the_first():
    """Each id is new exactly once."""
    known = Deduplicator()
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda n: known.seen(named(n % 100)), range(2000)))
    assert seen.count(False) == 100


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10"])
def test_a_bound_is_a_whole_number_above_0(wrong):
    """Anything else is refused, by name."""
    with pytest.raises(ValueError, match=r"max_ids: found .*; allowed is an int of 1 or more"):
        Deduplicator(wrong)
