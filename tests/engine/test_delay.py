"""A policy may have an admitted message held back before it is sent."""

from __future__ import annotations

import threading

import pytest

from shield import Message, Permit, Policy, Shield, StrictModel
from shield.capabilities import Paces
from shield.chain.runner import hold_back
from shield.testing import FakeClient, ManualClock
from tests.making import Kinds, admits, counts, over, permit, shield_with


class Slow(Policy, Paces):
    """Delays each message by so many seconds."""

    class Settings(StrictModel):
        """How long."""

        seconds: float = 0.25

    shorthand = "seconds"

    def check(self, message: Message, now: float) -> None:
        return None

    def delay_s(self, message: Message, now: float) -> float:
        return float(self.settings.seconds)


class Broken(Slow):
    def delay_s(self, message: Message, now: float) -> float:
        raise RuntimeError("no idea")


KINDS = Kinds(policies={"slow": Slow, "broken": Broken})


def slow(*seconds: float, **more: object) -> Shield:
    return shield_with({"match": "*", "slow": [*seconds], **more}, plugins=[KINDS])


def may() -> bool:
    return True


def waited_s(shield: Shield, verdict: Permit) -> float:
    begun = shield.clock.now()
    hold_back(verdict, may)
    return shield.clock.now() - begun


def test_a_permit_carries_the_delay_and_deciding_does_not_wait():
    """The clock stands still until the message is about to be sent."""
    shield = slow(0.25)
    begun = shield.clock.now()
    verdict = permit(shield)
    assert shield.clock.now() == begun
    assert verdict.delay_s == 0.25
    assert waited_s(shield, verdict) == pytest.approx(0.25)


def test_of_several_delays_the_longest_counts():
    """They are not added up."""
    shield = slow(0.25, 1.5, 0.5)
    assert permit(shield).delay_s == 1.5


def test_without_such_a_policy_there_is_no_delay_and_no_wait():
    """The clock is not even asked to wait."""
    shield = shield_with({"match": "*", "quota": "5/s"})
    verdict = permit(shield)
    assert verdict.delay_s == 0.0
    hold_back(verdict, may)
    assert shield.clock.waits == 0


def test_a_thread_that_may_not_wait_sends_at_once():
    """A client's I/O thread would wait for its own answers."""
    shield = slow(0.25)
    hold_back(permit(shield), lambda: False)
    assert shield.clock.waits == 0


def test_in_shadow_nothing_is_delayed():
    """Every message passes as if the rule were not there."""
    assert permit(slow(0.25, mode="shadow")).delay_s == 0.0


def test_a_policy_that_raises_delays_nobody_and_is_counted():
    """The other policies' delays hold."""
    rule = {"match": "*", "slow": 0.25, "broken": {}}
    shield = shield_with(rule, plugins=[KINDS])
    assert permit(shield).delay_s == 0.25
    assert shield.plugin_errors == {"rule-1.broken": 1}


def test_one_who_waited_in_line_is_held_back_as_well():
    """First the quota's wait, then the delay."""
    shield = slow(0.25, quota={"rate": "1/s", "burst": 1}, over_limit="wait 5s")
    client = FakeClient(shield)
    begun = shield.clock.now()
    client.publish("orders", b"1")
    client.publish("orders", b"2")
    assert shield.clock.now() - begun == pytest.approx(1.25, abs=0.01)
    client.ack()
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 2}


class InterruptedClock(ManualClock):
    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        raise KeyboardInterrupt


def test_a_wait_that_is_interrupted_gives_back_what_was_charged():
    """Ctrl-C while a message is held back: it is counted as failed, and its quota is free."""
    rule = {"match": "*", "slow": 0.25, "quota": {"rate": "1/h", "burst": 1}}
    shield = Shield({"rules": [rule]}, plugins=[KINDS], clock=InterruptedClock())
    client = FakeClient(shield)
    with pytest.raises(KeyboardInterrupt):
        client.publish("orders", b"1")
    assert client.unanswered == []
    assert counts(shield.ledger()) == {"offered": 1, "failed": 1}
    assert admits(shield)


def test_what_is_over_the_limit_is_not_delayed():
    """Only an admitted message is held back."""
    shield = slow(0.25, quota={"rate": "1/h", "burst": 1}, over_limit="drop")
    permit(shield)
    over(shield)
    client = FakeClient(shield, "p")
    client.publish("orders", b"2")
    assert shield.clock.waits == 0
