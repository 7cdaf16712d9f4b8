"""An exception from outside strikes the Shield at every moment at which Python lets one in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from shield import End, Message, Outcome, OverLimit, Permit, Shield
from shield.chain.runner import wait_in_line
from shield.config.settings import ShieldSettings, read_settings
from shield.delivery import Delivery
from shield.testing import ManualClock
from tests.contracts.striking import strikes

POLICIES: dict[str, Any] = {
    "quota": [{"rate": "1000/s", "per": "producer"}, {"rate": "1MiB/s", "per": "destination"}],
    "in_flight": {"messages": 1, "bytes": "1KiB"},
    "adaptive": "gradient2",
    "shed": {"by": "priority"},
}


def settings_of(**more: Any) -> ShieldSettings:
    rule = {"name": "r", "match": "q", "over_limit": "raise", **more}
    consume = {"name": "c", "match": "q", "direction": "consume", "in_flight": {"messages": 5}}
    return read_settings({"rules": [rule, consume]})


def message() -> Message:
    return Message("q", 100, "p")


def is_sound(shield: Shield, place: str) -> None:
    """Nothing is held, nothing is open, the books balance, and the next message goes through."""
    free: list[bool] = []
    other = threading.Thread(target=lambda: free.append(shield.engine._core.lock.acquire(False)))
    other.start()
    other.join()
    assert free == [True], f"struck at {place}, the lock stays taken"
    shield.engine._core.lock = type(shield.engine._core.lock)()  # the other thread has that one
    shield.engine._core.struck = (
        True  # as it is with the next one that strikes in a Shield's own code
    )
    ledger = shield.ledger()
    assert ledger.balanced, (place, ledger.as_dict())
    assert ledger.in_flight == 0, (place, ledger.as_dict())
    assert not shield.engine.lines, place
    for rule in shield.rules:
        for policy in rule.policies:
            held = getattr(policy, "in_flight", 0)
            assert held == 0, (place, policy.name, held)
            bound = getattr(policy, "_bound", None)
            assert bound is None or (bound.messages, bound.size) == (0, 0), (place, vars(policy))
            if policy.name == "shed":
                assert len(policy._held) == 0, place
                assert policy._pace.unanswered == 0, place
                assert policy._held.by_rank == [0, 0, 0, 0], place


class Case:
    """One action, struck at each of its moments."""

    def __init__(self, act: Callable[[Shield], object], **rule: Any) -> None:
        self.act = act
        self.rule = rule or POLICIES
        self.shield: Shield

    def run(self) -> int:
        settings = settings_of(**self.rule)

        def make() -> Callable[[], object]:
            self.shield = Shield(settings, clock=ManualClock())
            return lambda: self.act(self.shield)

        return strikes(make, lambda place: is_sound(self.shield, place))


def admitted(shield: Shield) -> Permit:
    verdict = shield.admit(message())
    assert type(verdict) is Permit
    return verdict


def delivered(shield: Shield) -> None:
    admitted(shield).delivered()


def overloaded(shield: Shield) -> None:
    admitted(shield).settle(Outcome.OVERLOADED)


def cancelled(shield: Shield) -> None:
    admitted(shield).cancel()


def looked_at(shield: Shield) -> None:
    admitted(shield).delivered()
    shield.ledger()
    shield.pressure()
    shield.status()


def refused(shield: Shield) -> None:
    permit = admitted(shield)
    over = shield.admit(message())
    assert type(over) is OverLimit
    over.end(End.DROPPED)
    permit.delivered()


def taken_back(shield: Shield) -> None:
    permit = admitted(shield)
    over = permit.refuse(shield.rules[0].policies[0].refuse("late"))
    assert over is not None
    over.end(End.RAISED)


def received(shield: Shield) -> None:
    permit = shield.engine.receive(Delivery("q", 10, "c"))
    assert type(permit) is Permit
    permit.delivered()


def run_of(shield: Shield) -> None:
    """Deliveries are taken out of a run one by one, joined, and given back."""
    assert shield.engine.takes_runs(Delivery("q", 10, "c"))
    run = shield.engine.receive_run(Delivery("q", 50, "c", messages=5))
    assert run is not None
    part = shield.engine.part_delivered(run, None, 10)
    shield.engine.part_delivered(run, part, 10)
    more = shield.engine.split(run, 1, 10)
    shield.engine.join(run, more)
    shield.engine.split(run, 1, 10).settle(Outcome.FAILED)
    shield.engine.withdraw(run)


def plain(shield: Shield) -> None:
    flow = shield.engine.plain_flow("q", "p")
    assert flow is not None
    assert shield.engine.admit_plain(flow, 100)


def plain_settled(shield: Shield) -> None:
    flow = shield.engine._core.sent["p", "q"]
    if shield.engine.admit_plain(flow, 100):
        try:
            pass
        finally:
            flow.run(1, 100).cancel()


def waits(shield: Shield) -> None:
    """It waits in line until there is room; a manual clock lets the time pass."""
    permit = admitted(shield)
    over = shield.admit(message())
    assert type(over) is OverLimit
    permit.delivered()
    second = wait_in_line(over, 5.0)
    assert second is not None
    second.delivered()


def waits_in_vain(shield: Shield) -> None:
    permit = admitted(shield)
    over = shield.admit(message())
    assert type(over) is OverLimit
    assert wait_in_line(over, 0.0) is None
    over.end(End.RAISED)
    permit.delivered()


def kept(shield: Shield) -> None:
    permit = admitted(shield)
    over = shield.admit(message())
    assert type(over) is OverLimit
    shield.engine.hold(over)
    over.keep(End.SPOOLED)
    permit.delivered()
    shield.engine.line_up_behind(over, lambda: None)
    second = shield.engine.ask_once(over)
    assert second is not None
    second.delivered()


BOUND = {"in_flight": {"messages": 1, "bytes": "1KiB"}}
CASES = {
    "admit and deliver": Case(delivered),
    "overloaded": Case(overloaded),
    "cancelled": Case(cancelled),
    "looked at": Case(looked_at),
    "refused": Case(refused, **BOUND),
    "taken back": Case(taken_back),
    "received": Case(received),
    "a run": Case(run_of),
    "waits": Case(waits, **BOUND),
    "waits in vain": Case(waits_in_vain, **BOUND),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_survives_its_owner(name):
    """Wherever it strikes, nothing stays locked, held, open or in line; the books balance."""
    assert CASES[name].run() > 10
