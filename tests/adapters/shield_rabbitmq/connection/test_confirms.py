"""Delivery tags, counted by hand."""

import random

from shield_rabbitmq.connection.confirms import UnconfirmedWindow


def window_of(count):
    window = UnconfirmedWindow()
    for number in range(1, count + 1):
        window.add(number)
    return window


def test_one_tag_confirms_one_message():
    """Each is about its own tag, in any order."""
    window = window_of(3)
    assert [window.confirm(tag, False) for tag in (2, 1, 3)] == [[2], [1], [3]]
    assert len(window) == 0


def test_multiple_confirms_all_up_to_it_that_are_open():
    """Those confirmed before are not confirmed again."""
    window = window_of(5)
    window.confirm(2, False)
    assert window.confirm(4, True) == [1, 3, 4]
    assert list(window) == [5]


def test_tag_zero_with_multiple_confirms_all():
    """As the protocol says."""
    assert window_of(3).confirm(0, True) == [1, 2, 3]


def test_a_tag_that_is_not_open_confirms_nothing():
    """One confirmed before, or never given."""
    window = window_of(2)
    window.confirm(1, False)
    assert window.confirm(1, False) == window.confirm(9, False) == []
    assert window.confirm(1, True) == []


def test_clear_returns_what_is_open_and_begins_with_tag_one():
    """A new channel counts anew."""
    window = window_of(4)
    window.confirm(2, False)
    assert window.clear() == [1, 3, 4]
    window.add("new")
    assert window.confirm(1, False) == ["new"]


def test_find_returns_the_oldest():
    """Of those that are open."""
    window = window_of(4)
    window.confirm(2, False)
    assert window.find(lambda number: number % 2 == 0) == 4
    assert window.find(lambda number: number > 9) is None


def test_every_message_is_confirmed_once_whatever_the_order():
    """Random confirms of both kinds, against a plain set."""
    for seed in range(50):
        chance = random.Random(seed)
        window, given, still_open = UnconfirmedWindow(), 0, set()
        for _ in range(200):
            if chance.random() < 0.5:
                given += 1
                window.add(given)
                still_open.add(given)
            elif given:
                tag, multiple = chance.randint(1, given), chance.random() < 0.3
                expected = {t for t in still_open if t == tag or (multiple and t < tag)}
                assert window.confirm(tag, multiple) == sorted(expected)
                still_open -= expected
        assert list(window) == sorted(still_open)
        assert len(window) == len(still_open)
