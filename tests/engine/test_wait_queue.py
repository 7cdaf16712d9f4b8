"""Waiting: first come, first served; woken, never polling; never a deadlock."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import shield as public
from shield import End, Message, Outcome, OverLimit, Permit, Policy, Shield
from shield.capabilities import Queues
from shield.chain.runner import wait_in_line
from shield.testing import HeldClock
from tests.making import Kinds, message, over, permit, shield_with

ONE_AN_HOUR = {"rate": "1/h", "burst": 1}


def held(*rules, plugins=()):
    """Return a Shield whose time stands still until the test moves it."""
    return Shield({"rules": list(rules)}, plugins=plugins, clock=HeldClock())


class Waiting:
    """Threads that wait for admission, begun one after the other."""

    def __init__(self, shield: Shield) -> None:
        self.shield = shield
        self.pool = ThreadPoolExecutor(20)
        self.admitted: list[object] = []
        self._changed = threading.Condition()
        self.asked = 0
        ask_again = shield.engine.ask_again

        def counted(waiter, now=None):
            self.asked += 1
            return ask_again(waiter, now)

        shield.engine.ask_again = counted

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *exception: object) -> None:
        self.shield.clock.advance(1e9)
        self.pool.shutdown()

    def until_admitted(self, number):
        """Block until so many have been admitted."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.admitted) >= number, 10)

    def begin(self, name, limit_s=1e8, **kwargs):
        """Let one more thread wait; return when it is blocked."""
        before = self.shield.clock._waiting

        def wait():
            got = wait_in_line(over(self.shield, **kwargs), limit_s)
            if got is not None:
                with self._changed:
                    self.admitted.append(name)
                    self._changed.notify_all()
            return got

        future = self.pool.submit(wait)
        self.shield.clock.until_waiting(before + 1)
        return future


def test_waiters_are_served_in_the_order_they_came():
    """Ten threads, one place: each answer lets in the one that has waited longest."""
    shield = held({"match": "*", "in_flight": {"messages": 1}})
    holder = permit(shield)
    with Waiting(shield) as waiting:
        futures = [waiting.begin(number) for number in range(10)]
        for future in futures:
            holder.delivered()
            holder = future.result(60)
        assert waiting.admitted == list(range(10))
        assert waiting.asked <= 3 * 10


def test_waiters_for_a_quota_are_served_in_order_as_time_passes():
    """One for each period, the first in line first; nobody else asks."""
    shield = held({"match": "*", "quota": {"rate": "1/s", "burst": 1}})
    permit(shield)
    with Waiting(shield) as waiting:
        futures = [waiting.begin(number) for number in range(5)]
        for number, future in enumerate(futures):
            shield.clock.advance(1.0)
            future.result(60)
            assert waiting.admitted == list(range(number + 1))
            shield.clock.until_waiting(4 - number)
        assert waiting.asked <= 3 * 5


def test_waiting_does_not_poll():
    """A thread asks when it stands in line, and again when it is woken; its clock is asked once."""
    shield = held({"match": "*", "in_flight": {"messages": 1}})
    holder = permit(shield)
    with Waiting(shield) as waiting:
        future = waiting.begin("one")
        for _ in range(100):
            shield.admit(message()).end(End.DROPPED)
            shield.ledger()
        assert (waiting.asked, shield.clock.waits) == (1, 1)
        holder.delivered()
        future.result(60)
        assert (waiting.asked, shield.clock.waits) == (2, 1)


def test_who_arrives_later_does_not_overtake():
    """While somebody waits, a newcomer is refused even where there would be room for it."""
    shield = held({"match": "*", "in_flight": {"bytes": 100}})
    holder = permit(shield, size=60)
    with Waiting(shield) as waiting:
        future = waiting.begin("large", size=90)
        refused = over(shield, size=10)
        assert refused.reason == "others wait"
        refused.end(End.DROPPED)
        holder.delivered()
        future.result(60)
    permit(shield, size=10)


def test_one_line_does_not_hold_up_another():
    """Messages of another key, which nobody waits for, pass."""
    shield = held({"match": "*", "quota": ONE_AN_HOUR | {"per": "key"}})
    permit(shield, key=b"a")
    with Waiting(shield) as waiting:
        waiting.begin("a", key=b"a")
        permit(shield, key=b"b")
        assert over(shield, key=b"a").retry_after_s == pytest.approx(7200, abs=1e-3)


def test_a_wait_that_cannot_end_in_time_declines_at_once():
    """The time of a quota is known: whoever has less does not begin to wait."""
    shield = held({"match": "*", "quota": ONE_AN_HOUR})
    permit(shield)
    assert wait_in_line(over(shield), 3599.0) is None
    assert shield.clock.waits == 0
    assert not shield.engine.lines


def test_a_wait_behind_others_declines_at_once_where_their_turn_takes_too_long():
    """With four ahead at one a second, three seconds are not enough, and six are."""
    shield = held({"match": "*", "quota": {"rate": "1/s", "burst": 1}})
    permit(shield)
    with Waiting(shield) as waiting:
        for number in range(4):
            waiting.begin(number)
        waits = shield.clock.waits
        assert over(shield).retry_after_s == pytest.approx(5.0, abs=1e-3)
        assert wait_in_line(over(shield), 3.0) is None
        assert shield.clock.waits == waits
        future = waiting.begin("fifth", 6.0)
        for number in range(5):
            shield.clock.advance(1.0)
            waiting.until_admitted(number + 1)
        assert isinstance(future.result(60), Permit)


def test_a_wait_ends_when_its_time_is_over():
    """A place that does not come free: the waiter leaves, and the message is over the limit."""
    shield = held({"match": "*", "in_flight": {"messages": 1}})
    permit(shield)
    with Waiting(shield) as waiting:
        future = waiting.begin("one", 5.0)
        shield.clock.advance(5.0)
        assert future.result(60) is None
        assert not shield.engine.lines
    assert shield.ledger().in_flight == 2


def test_a_waiter_that_gives_up_lets_the_next_ask():
    """The small message behind a large one goes when the large one has left."""
    shield = held({"match": "*", "in_flight": {"bytes": 100}})
    permit(shield, size=60)
    with Waiting(shield) as waiting:
        large = waiting.begin("large", 5.0, size=90)
        small = waiting.begin("small", size=40)
        shield.clock.advance(5.0)
        assert large.result(60) is None
        assert isinstance(small.result(60), Permit)


def test_one_answer_lets_in_as_many_as_have_room():
    """Each that is admitted wakes the next in line, until one does not fit."""
    shield = held({"match": "*", "in_flight": {"bytes": 100}})
    holder = permit(shield, size=100)
    with Waiting(shield) as waiting:
        futures = [waiting.begin(number, size=30) for number in range(4)]
        holder.delivered()
        for future in futures[:3]:
            future.result(60)
        shield.clock.until_waiting(1)
        assert waiting.admitted == [0, 1, 2]


@pytest.mark.parametrize("how", ["settle", "cancel", "answer", "delivered"])
def test_whatever_frees_a_place_wakes_the_first_in_line(how):
    """An answer, a failure, a send that never began."""
    shield = held({"match": "*", "in_flight": {"messages": 1}})
    holder = permit(shield)
    with Waiting(shield) as waiting:
        future = waiting.begin("one")
        arguments = [Outcome.FAILED] if how in ("settle", "answer") else []
        getattr(holder, how)(*arguments)
        assert isinstance(future.result(60), Permit)


def test_a_cancelled_send_lets_a_quotas_waiter_in_before_its_time():
    """What it was charged is there again at once."""
    shield = held({"match": "*", "quota": ONE_AN_HOUR})
    holder = permit(shield)
    with Waiting(shield) as waiting:
        future = waiting.begin("one")
        holder.cancel()
        assert isinstance(future.result(60), Permit)


@pytest.mark.parametrize("look", [lambda s: s.ledger(), lambda s: s.admit(message("other"))])
def test_an_answer_that_another_thread_picks_up_still_wakes(look):
    """Between a client's answer and its wake-up, somebody may look at the books."""
    shield = held({"match": "orders", "in_flight": {"messages": 1}})
    holder = permit(shield)
    woken = []
    waiter = shield.engine.line_up(over(shield), lambda: woken.append(True))
    assert shield.engine.ask_again(waiter) == float("inf")
    shield.engine.answers.append(holder)  # as `delivered` does, up to here
    look(shield)
    shield.engine.catch_up()
    assert woken
    assert isinstance(shield.engine.ask_again(waiter), Permit)


def test_waiters_across_two_policies_do_not_deadlock():
    """They stand in two lines in opposite orders, and all get through."""
    shield = held(
        {"match": "*", "in_flight": {"messages": 2}},
        {"match": "a", "quota": {"rate": "1/s", "burst": 1}},
        {"match": "b", "quota": {"rate": "1/s", "burst": 1}},
    )
    holders = [permit(shield, "a"), permit(shield, "b")]
    with Waiting(shield) as waiting:
        futures = [waiting.begin(n, destination="ab"[n % 2]) for n in range(8)]
        for holder in holders:
            holder.delivered()
        done: set = set()
        for _ in range(2000):
            shield.clock.advance(1.0)
            for future in futures:
                if future not in done and future.done():
                    done.add(future)
                    future.result().delivered()
            if len(done) == len(futures):
                break
            threading.Event().wait(0.002)
        assert len(done) == 8
        for parity in (0, 1):
            mine = [n for n in waiting.admitted if n % 2 == parity]
            assert mine == sorted(mine)
    assert not shield.engine.lines


def test_waiting_threads_and_answers_in_any_order_lose_no_wake_up():
    """Sixteen threads through one place, a few thousand times, on the real clock."""
    shield = Shield({"rules": [{"match": "*", "in_flight": {"messages": 1}}]})
    lost = []

    def send():
        for _ in range(100):
            verdict = shield.admit(message())
            if isinstance(verdict, OverLimit):
                verdict = wait_in_line(verdict, 30.0)
            if verdict is None:
                lost.append(True)
            else:
                verdict.delivered()

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(send) for _ in range(16)]:
            future.result(60)
    assert lost == []
    assert shield.ledger().delivered == 1600
    assert not shield.engine.lines


def test_a_waiter_that_is_interrupted_leaves_its_line():
    """An exception in the wait, as Ctrl-C, leaves no gap behind."""
    shield = shield_with({"match": "*", "in_flight": {"messages": 1}, "over_limit": "wait 1h"})
    permit(shield)

    def interrupted(event, timeout_s):
        raise KeyboardInterrupt

    shield.clock.wait = interrupted
    with pytest.raises(KeyboardInterrupt):
        wait_in_line(over(shield), 10.0)
    assert not shield.engine.lines


def test_a_policy_whose_line_raises_holds_up_nobody():
    """Its error is counted; its messages wait in one line."""

    class Crooked(Policy, Queues):
        room = 1

        def check(self, message: Message, now: float):
            return None if self.room else self.refuse("full")

        def acquire(self, message, now):
            self.room -= 1

        def release(self, message, outcome, now):
            self.room += 1

        def queue_key(self, message):
            raise RuntimeError("no line")

    rule = {"name": "r", "match": "*", "crooked": {}}
    shield = held(rule, plugins=[Kinds({"crooked": Crooked})])
    holder = permit(shield)
    with Waiting(shield) as waiting:
        future = waiting.begin("one")
        holder.delivered()
        assert isinstance(future.result(60), Permit)
    assert set(shield.plugin_errors) == {"r.crooked"}


def test_a_refusal_that_a_policy_keeps_is_not_changed():
    """A policy may give the same refusal again and again; each wait is its own."""

    class Full(Policy, Queues):
        kept = None

        def check(self, message, now):
            self.kept = self.kept or self.refuse("full", 10.0)
            return self.kept

        def drain_time_s(self, messages, size):
            return 10.0 * messages

    shield = shield_with({"match": "*", "full": {}}, plugins=[Kinds({"full": Full})])
    for _ in range(2):
        shield.engine.line_up(over(shield), lambda: None)
    assert over(shield).retry_after_s == 30.0
    assert over(shield).retry_after_s == 30.0


def test_who_waited_is_admitted_with_what_it_was_told():
    """In the ledger a message that waited is over the limit once, and delivered."""
    shield = shield_with({"match": "*", "quota": ONE_AN_HOUR})
    permit(shield).delivered()
    waited = wait_in_line(over(shield), 7200.0)
    waited.delivered()
    ledger = shield.ledger()
    assert (ledger.offered, ledger.delivered) == (2, 2)
    assert sum(ledger.over_limit.values()) == 1
    assert public.ledger().balanced
