"""A publisher's own bound."""

import threading

from shield_rabbitmq.publishing.publisher_limit import PublisherLimit


def test_who_finds_no_room_waits_until_there_is():
    """A release lets the next one in."""
    room = PublisherLimit(1, 100)
    assert room.take(1, at_once=False)
    entered = threading.Event()

    def enter():
        room.take(1, at_once=False)
        entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.05)
    room.release(1)
    assert entered.wait(60)
    thread.join()


def test_bytes_are_bounded_too_but_never_shut_a_large_message_out():
    """One above all the bytes passes while nothing else is there."""
    room = PublisherLimit(10, 100)
    assert room.take(1000, at_once=False)
    assert room.take(1, at_once=True)


def test_closing_turns_away_who_waits():
    """They get False, and so does everyone after them."""
    room = PublisherLimit(1, 100)
    room.take(1, at_once=False)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(room.take(1, at_once=False)))
    thread.start()
    room.close()
    thread.join(60)
    assert answers == [False]
    assert not room.take(1, at_once=True)
