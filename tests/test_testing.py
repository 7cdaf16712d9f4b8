"""The tools for plugin authors do what they say; the contracts catch who breaks them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from shield import Action, Policy
from shield.action import Raise, Wait
from shield.testing import ActionContract, HeldClock, ManualClock, PolicyContract
from tests.making import Kinds, policy_with


def test_a_manual_clock_moves_when_somebody_waits():
    """To the end of the wait, at once."""
    clock = ManualClock(5.0)
    assert not clock.wait(threading.Event(), 3.0)
    assert (clock.now(), clock.waits) == (8.0, 1)


def test_a_manual_clock_stands_still_for_an_event_that_is_set():
    """Such a wait is over before it begins."""
    clock, event = ManualClock(5.0), threading.Event()
    event.set()
    assert clock.wait(event, 3.0)
    assert clock.now() == 5.0


def test_a_manual_clock_always_moves():
    """Also by less than floats can tell at that moment, so that no loop waits for ever."""
    clock = ManualClock(1e9)
    clock.advance(1e-12)
    assert clock.now() > 1e9


def test_a_held_clock_blocks_until_the_test_lets_time_pass():
    """Or until the event is set."""
    clock, event = HeldClock(), threading.Event()
    woken = []
    threads = [
        threading.Thread(target=lambda s=s: woken.append((s, clock.wait(event, s)))) for s in (1, 9)
    ]
    for thread in threads:
        thread.start()
    clock.until_waiting(2)
    clock.advance(1.0)
    clock.until_waiting(1)
    assert woken == [(1, False)]
    event.set()
    for thread in threads:
        thread.join(60)
    assert woken == [(1, False), (9, True)]


def broken(**methods) -> type[Policy]:
    sound = {
        "room": 3,
        "check": lambda self, m, now: None if self.room > 0 else self.refuse("full"),
        "acquire": lambda self, m, now: setattr(self, "room", self.room - 1),
        "cancel": lambda self, m: setattr(self, "room", self.room + 1),
        "release": lambda self, m, outcome, now: setattr(self, "room", self.room + 1),
    }
    if "status" in methods:
        sound["pressure"] = lambda self, m, now: 0.0 if self.room > 0 else 1.0
    return policy_with(**(sound | methods))


def greedy(self, message, now):
    self.room -= 1
    return None if self.room >= 0 else self.refuse("full")


def fails(self, *arguments):
    raise RuntimeError("broken")


def talkative(self, message, now):
    return self.refuse(f"{message.key!r} is refused") if self.room <= 0 else None


def long_winded(self, message, now):
    return self.refuse("full " * 100) if self.room <= 0 else None


def its_own_threads(self, message, outcome, now):
    """Lose track of what another thread took."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("not my thread")


def hoards():
    def release(self, message, outcome, now):
        self.room += 1
        kept.append(message)

    kept = []
    return release


POLICY_CASES = [name for name in dir(PolicyContract) if name.startswith("test_")]
ACTION_CASES = [name for name in dir(ActionContract) if name.startswith("test_")]


def failed_cases(contract: object, cases: Sequence[str]) -> set[str]:
    failed = set()
    for case in cases:
        try:
            getattr(contract, case)()
        except Exception:
            failed.add(case)
    return failed


def failures_of(kind: type[Policy], *cases: str) -> set[str]:
    members = {"plugins": [Kinds({"one": kind})], "name": "one", "settings": {}}
    return failed_cases(type("Case", (PolicyContract,), members)(), cases or POLICY_CASES)


def test_a_sound_policy_passes_the_contract():
    """The one that the broken ones below are made of."""
    assert failures_of(broken()) == set()


@pytest.mark.parametrize(
    ("methods", "case"),
    [
        ({"check": greedy}, "test_a_check_changes_nothing"),
        ({"cancel": lambda self, m: None}, "test_what_is_given_back_is_as_if_never_taken"),
        ({"acquire": fails}, "test_no_message_makes_it_raise"),
        ({"release": fails}, "test_no_message_makes_it_raise"),
        (
            {"queue_key": lambda self, m: []},
            "test_a_queue_and_its_drain_time_can_be_told_of_any_message",
        ),
        ({"check": lambda self, m, now: True}, "test_what_it_says_is_what_it_may_say"),
        ({"check_waiting": lambda self, m, s, now: True}, "test_what_it_says_is_what_it_may_say"),
        ({"delay_s": lambda self, m, now: "soon"}, "test_what_it_says_is_what_it_may_say"),
        ({"newest_first": lambda self, m, now: 1}, "test_what_it_says_is_what_it_may_say"),
        ({"max_in_flight": lambda self: 0}, "test_what_it_says_is_what_it_may_say"),
        ({"status": lambda self, now: {"a": []}}, "test_what_it_says_is_what_it_may_say"),
        ({"check": talkative}, "test_its_reasons_are_few_and_short"),
        ({"check": long_winded}, "test_its_reasons_are_few_and_short"),
        ({"release": its_own_threads}, "test_it_is_used_by_many_threads"),
        ({"check": lambda self, m, now: time.sleep(0.01)}, "test_it_is_quick"),
        ({"status": lambda self, now: time.sleep(0.01) or {}}, "test_it_is_quick"),
        ({"release": hoards()}, "test_it_keeps_nothing_of_what_has_ended"),
        ({"release": hoards()}, "test_it_forgets_who_is_gone"),
        ({"room": 0}, "test_an_ordinary_message_is_admitted_at_first"),
        (
            {"check": lambda self, m, now: None if self.room > 0 else self.refuse("full", -1)},
            "test_a_refusal_says_why_and_for_how_long",
        ),
        (
            {"release": lambda self, m, o, now: setattr(self, "room", self.room + 2)},
            "test_a_permit_settled_twice_releases_once",
        ),
    ],
)
def test_a_policy_that_breaks_a_promise_fails_its_case(methods, case):
    """Each case catches what it is there for."""
    assert failures_of(broken(**methods), case) == {case}


def test_an_action_that_breaks_a_promise_fails_its_case(monkeypatch):
    """One that counts, one that raises, one that returns what is no step, and so on."""

    class Counts(Action):
        def step(self, over):
            over.end("dropped")
            return Raise()

    class NoStep(Action):
        def step(self, over):
            return "drop"

    class Raises(Action):
        def step(self, over):
            raise AssertionError

    class Boasts(Action):
        def step(self, over):
            return Wait("a while")

    class Sleeps(Action):
        def step(self, over):
            time.sleep(0.01)

    class Hoards(Action):
        def step(self, over):
            hoarded.append((over, bytes(1000)))

    class StaysOpen(Action):
        def opened(self, client, engine):
            threading.Thread(target=ended.wait, args=(60,), daemon=True).start()

        def step(self, over):
            return None

    class OneThread(Action):
        def step(self, over):
            if threading.current_thread() is not threading.main_thread():
                raise RuntimeError("not my thread")

    hoarded, ended = [], threading.Event()
    monkeypatch.setattr("shield.testing.contract.PATIENCE_S", 0.5)
    for action, case in [
        (Boasts, "test_it_takes_a_step_or_declines"),
        (Sleeps, "test_it_is_quick"),
        (Hoards, "test_it_keeps_nothing_of_what_has_ended"),
        (StaysOpen, "test_it_lets_go_of_its_clients"),
        (OneThread, "test_every_message_of_every_thread_comes_to_one_end"),
        (Counts, "test_it_counts_nothing"),
        (NoStep, "test_it_takes_a_step_or_declines"),
        (Raises, "test_every_message_comes_to_one_end"),
    ]:
        members = {"plugins": [Kinds(actions={"one": action})], "link": "one"}
        contract = type("Case", (ActionContract,), members)()
        assert failed_cases(contract, [case]) == {case}
    ended.set()
