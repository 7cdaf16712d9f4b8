"""Messages that are set aside: counted where they are, taken back when the policies admit them."""

from __future__ import annotations

import threading

import pytest

from shield import End, Outcome, OverLimit, Permit, Policy
from shield.capabilities import FollowsDiversion
from shield.chain.runner import wait_behind
from shield.headers import MESSAGE_ID
from shield.testing import FakeClient, HeldClock
from tests.making import Kinds, counts, message, over, permit, shield_with

ONE_A_SECOND = {"name": "orders", "match": "*", "quota": {"rate": "1/s", "burst": 1}}
ONE_IN_FLIGHT = {"name": "orders", "match": "*", "in_flight": {"messages": 1}}


@pytest.fixture
def shield():
    return shield_with(ONE_A_SECOND)


def test_a_kept_message_is_counted_where_it_is(shield):
    """It moves from in flight to buffered, from there to spooled, and to its end."""
    permit(shield)
    claim = over(shield)
    assert claim.keep(End.BUFFERED)
    assert counts(shield.ledger()) == {"offered": 2, "in_flight": 1, "buffered": 1}
    assert claim.keep(End.SPOOLED)
    assert counts(shield.ledger()) == {"offered": 2, "in_flight": 1, "spooled": 1}
    assert claim.end(End.RAISED)
    assert counts(shield.ledger()) == {"offered": 2, "in_flight": 1, "raised": 1}


def test_a_message_that_has_its_end_cannot_be_kept(shield):
    """An end is an end."""
    permit(shield)
    claim = over(shield)
    claim.end(End.DROPPED)
    assert not claim.keep(End.BUFFERED)
    assert counts(shield.ledger()) == {"offered": 2, "in_flight": 1, "dropped": 1}


def test_a_kept_message_that_is_admitted_is_in_flight_and_then_delivered(shield):
    """It is offered once, charged once, and leaves where it was kept."""
    permit(shield).delivered()
    claim = over(shield)
    claim.keep(End.BUFFERED)
    waiter = shield.engine.line_up(claim, lambda: None)
    assert shield.engine.ask_again(waiter) == pytest.approx(1.0, abs=1e-5)
    shield.clock.advance(1.0)
    admitted = shield.engine.ask_again(waiter)
    assert isinstance(admitted, Permit)
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 1, "in_flight": 1}
    admitted.delivered()
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 2}


def test_a_stored_message_is_offered_again_without_being_counted_again(shield):
    """Refused it stays spooled; admitted it is in flight; a failed send puts it back."""
    permit(shield).delivered()
    over(shield).keep(End.SPOOLED)
    assert isinstance(shield.engine.readmit(message(), End.SPOOLED), OverLimit)
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 1, "spooled": 1}
    assert sum(shield.ledger().over_limit.values()) == 1
    shield.clock.advance(1.0)
    admitted = shield.engine.readmit(message(), End.SPOOLED)
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 1, "in_flight": 1}
    shield.engine.settle(admitted, Outcome.OVERLOADED, End.SPOOLED)
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 1, "spooled": 1}


def test_what_an_earlier_process_left_is_offered_here(shield):
    """It is counted as offered and spooled, so that the ledger balances when it goes out."""
    shield.engine.found(message(), End.SPOOLED, 3)
    assert counts(shield.ledger()) == {"offered": 3, "spooled": 3}
    assert shield.engine.readmit(message(), End.SPOOLED).settle(Outcome.DELIVERED)
    assert counts(shield.ledger()) == {"offered": 3, "spooled": 2, "delivered": 1}


def test_who_waits_behind_holds_nobody_back():
    """A newcomer is admitted although a stored message has waited longer."""
    shield = shield_with(ONE_IN_FLIGHT)
    first = permit(shield)
    stored = over(shield)
    stored.keep(End.SPOOLED)
    waiter = shield.engine.line_up_behind(stored, lambda: None)
    assert shield.engine.ask_again(waiter) == float("inf")
    first.delivered()
    assert isinstance(shield.admit(message()), Permit)
    assert not isinstance(shield.engine.ask_again(waiter), Permit)


def test_who_waits_behind_is_woken_when_there_is_room():
    """It does not look again and again: an answer wakes it."""
    shield = shield_with(ONE_IN_FLIGHT)
    first = permit(shield)
    woken = []
    waiter = shield.engine.line_up_behind(over(shield), lambda: woken.append(True))
    shield.engine.ask_again(waiter)
    first.delivered()
    assert woken
    assert isinstance(shield.engine.ask_again(waiter), Permit)


def test_a_wait_behind_ends_when_it_is_stopped():
    """The one who waits is woken and goes away without a permit."""
    shield = shield_with(ONE_IN_FLIGHT)
    shield.engine.clock = HeldClock()
    permit(shield)
    claim, woken, stopped = over(shield), threading.Event(), threading.Event()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(wait_behind(claim, woken, stopped.is_set))
    )
    thread.start()
    shield.engine.clock.until_waiting(1)
    stopped.set()
    woken.set()
    thread.join(60)
    assert found == [None]
    assert not shield.engine.lines


class Watching(Policy, FollowsDiversion):
    """Notes which messages are set aside, and refuses every second."""

    aside = 0

    def check(self, message, now):
        return self.refuse("odd") if message.size == 1 else None

    def on_diverted(self, message):
        self.aside += 1

    def on_returned(self, message):
        self.aside -= 1


@pytest.mark.parametrize("end", [End.DROPPED, End.RAISED, End.FAILED])
def test_policies_hear_when_a_message_is_set_aside_and_when_it_ends(end):
    """Once each, however often it is moved."""
    shield = shield_with({"match": "*", "watching": {}}, plugins=[Kinds({"watching": Watching})])
    (policy,) = shield.rules[0].policies
    claim = over(shield, size=1)
    shield.engine.hold(claim)
    shield.engine.hold(claim)
    assert policy.aside == 1
    claim.keep(End.BUFFERED)
    claim.keep(End.SPOOLED)
    assert policy.aside == 1
    claim.end(end)
    assert policy.aside == 0


def test_what_overflowed_is_still_aside():
    """Until it is brought back."""
    shield = shield_with({"match": "*", "watching": {}}, plugins=[Kinds({"watching": Watching})])
    claim = over(shield, size=1)
    shield.engine.hold(claim)
    claim.end(End.OVERFLOWED)
    (policy,) = shield.rules[0].policies
    assert policy.aside == 1


def ids_of_overflow_copies(client: FakeClient, headers: dict[str, str] | None = None) -> set[str]:
    """Publish a message whose two overflow sends fail, one after another; return their ids."""
    client.publish("orders", b"x", headers=headers)
    found = set()
    for destination in ("first", "second"):
        (record,) = client.unanswered
        assert record.destination == destination
        found.add(record.headers[MESSAGE_ID])
        client.fail()
    return found


@pytest.fixture
def client():
    """Nothing is admitted; the chain has two overflows, the first of which may have arrived."""
    rule = {"name": "orders", "match": "orders", "quota": {"rate": "1/d", "burst": 1}}
    client = FakeClient(shield_with(rule | {"over_limit": ["overflow first", "overflow second"]}))
    client.publish("orders", b"admitted")
    client.ack()
    return client


def test_a_message_has_one_id_however_often_it_is_set_aside(client):
    """What a failed overflow may have stored has the id of the copy that the chain makes next."""
    (first,) = ids_of_overflow_copies(client)
    (second,) = ids_of_overflow_copies(client)
    assert first != second


def test_a_message_that_comes_with_an_id_keeps_it(client):
    """It was set aside before, maybe by another process."""
    assert ids_of_overflow_copies(client, {MESSAGE_ID: "old"}) == {"old"}


def test_a_message_that_is_never_set_aside_draws_no_id(client):
    """Nor pays for one."""
    assert not hasattr(message(), "id")
