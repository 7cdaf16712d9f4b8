"""The tools for plugin authors do what they say; the contracts catch who breaks them."""

from __future__ import annotations

import threading

import pytest

from shield import Action, Policy
from shield.action import Raise
from shield.testing import ActionContract, HeldClock, ManualClock, PolicyContract
from tests.making import Kinds


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
        "take": lambda self, m, now: setattr(self, "room", self.room - 1),
        "give_back": lambda self, m: setattr(self, "room", self.room + 1),
        "settle": lambda self, m, outcome, now: setattr(self, "room", self.room + 1),
    }
    return type("Broken", (Policy,), sound | methods)


def greedy(self, message, now):
    self.room -= 1
    return None if self.room >= 0 else self.refuse("full")


def fails(self, *arguments):
    raise RuntimeError("broken")


POLICY_CASES = [name for name in dir(PolicyContract) if name.startswith("test_")]
ACTION_CASES = [name for name in dir(ActionContract) if name.startswith("test_")]


def failed_cases(contract: object, cases: list[str]) -> set[str]:
    failed = set()
    for case in cases:
        try:
            getattr(contract, case)()
        except AssertionError:
            failed.add(case)
    return failed


def failures_of(kind: type[Policy]) -> set[str]:
    members = {"plugins": [Kinds({"one": kind})], "name": "one", "settings": {}}
    return failed_cases(type("Case", (PolicyContract,), members)(), POLICY_CASES)


def test_a_sound_policy_passes_the_contract():
    """The one that the broken ones below are made of."""
    assert failures_of(broken()) == set()


@pytest.mark.parametrize(
    ("methods", "case"),
    [
        ({"check": greedy}, "test_a_check_changes_nothing"),
        ({"give_back": lambda self, m: None}, "test_what_is_given_back_is_as_if_never_taken"),
        ({"take": fails}, "test_no_message_makes_it_raise"),
        ({"settle": fails}, "test_no_message_makes_it_raise"),
        ({"line": lambda self, m: []}, "test_a_line_and_its_wait_can_be_told_of_any_message"),
        ({"room": 0}, "test_an_ordinary_message_is_admitted_at_first"),
        (
            {"check": lambda self, m, now: None if self.room > 0 else self.refuse("full", -1)},
            "test_a_refusal_says_why_and_for_how_long",
        ),
        (
            {"settle": lambda self, m, o, now: setattr(self, "room", self.room + 2)},
            "test_a_permit_settled_twice_releases_once",
        ),
    ],
)
def test_a_policy_that_breaks_a_promise_fails_its_case(methods, case):
    """Each case catches what it is there for."""
    try:
        assert case in failures_of(broken(**methods))
    except TypeError:
        assert "line" in methods


def test_an_action_that_breaks_a_promise_fails_its_case():
    """One that counts, one that raises, one that returns what is no step."""

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

    for action, case in [
        (Counts, "test_it_counts_nothing"),
        (NoStep, "test_it_takes_a_step_or_declines"),
        (Raises, "test_every_message_comes_to_one_end"),
    ]:
        members = {"plugins": [Kinds(actions={"one": action})], "link": "one"}
        contract = type("Case", (ActionContract,), members)()
        assert case in failed_cases(contract, ACTION_CASES)
