"""What every policy promises, as a test class to inherit."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, ClassVar

from shield.ledger import End
from shield.message import Message
from shield.shield import Shield
from shield.testing.clock import ManualClock
from shield.testing.contract import ODD_MESSAGES, problems_of
from shield.verdict import Outcome, OverLimit, Permit, Refusal


class PolicyContract:
    """What every policy promises. Inherit it in a test class that says what to test.

    Example:
        >>> class TestQuietHours(PolicyContract):
        ...     plugins = (quiet_hours,)
        ...     name = "quiet_hours"
        ...     settings = {"from": "22:00", "to": "06:00"}
    """

    plugins: ClassVar[Sequence[object]] = ()
    """Plugin modules or objects to register; none where an entry point names the policy's."""
    name: ClassVar[str]
    """The key of the policy in a rule."""
    settings: ClassVar[Any]
    """Its table, such that `message()` is admitted at first."""
    most: ClassVar[int] = 1_000
    """How many messages to offer in search of a refusal."""

    def message(self) -> Message:
        """Return an ordinary message."""
        return Message("orders", 100, "checkout", b"42")

    def make(self) -> tuple[Shield, ManualClock]:
        """Return a Shield with one rule that has this policy alone, and its clock."""
        clock = ManualClock()
        rule = {"match": "*", self.name: self.settings}
        return Shield({"rules": [rule]}, plugins=self.plugins, clock=clock), clock

    def test_an_ordinary_message_is_admitted_at_first(self) -> None:
        """A fresh policy admits."""
        shield, _ = self.make()
        assert isinstance(shield.admit(self.message()), Permit)

    def test_a_check_changes_nothing(self) -> None:
        """However often it is asked, it admits as many as one that was not asked before."""
        shield, clock = self.make()
        policy = shield.rules[0].policies[0]
        for _ in range(10):
            policy.check(self.message(), clock.now())
        assert len(self._fill(shield)) == len(self._fill(self.make()[0]))

    def test_a_refused_message_changes_nothing(self) -> None:
        """After a hundred refusals the wait is as long as after one."""
        shield, clock = self.make()
        self._fill(shield)
        policy = shield.rules[0].policies[0]
        first = policy.check(self.message(), clock.now())
        for _ in range(100):
            shield.admit(self.message())
        last = policy.check(self.message(), clock.now())
        assert (first is None) == (last is None)
        if first is not None and last is not None:
            assert first.retry_after_s == last.retry_after_s

    def test_what_is_given_back_is_as_if_never_taken(self) -> None:
        """A cancelled send leaves room for just as many."""
        shield, _ = self.make()
        permit = shield.admit(self.message())
        assert isinstance(permit, Permit)
        assert permit.cancel()
        assert len(self._fill(shield)) == len(self._fill(self.make()[0]))

    def test_a_permit_settled_twice_releases_once(self) -> None:
        """One answer makes room for one more message of its size at the most."""
        shield, _ = self.make()
        permits = self._fill(shield)
        assert permits, "an ordinary message is refused at first"
        assert permits[0].settle(Outcome.DELIVERED)
        assert not permits[0].settle(Outcome.DELIVERED)
        if len(permits) < self.most:
            assert len(self._fill(shield)) <= 1

    def test_a_refusal_says_why_and_for_how_long(self) -> None:
        """It has a reason, and a time that is not negative; then the message is admitted."""
        shield, clock = self.make()
        self._fill(shield)
        refusal = shield.rules[0].policies[0].check(self.message(), clock.now())
        if refusal is None:
            return
        assert refusal.reason
        after_s = refusal.retry_after_s
        assert after_s is None or after_s >= 0
        if after_s is not None and after_s < inf:
            clock.advance(after_s + 1e-6)
            assert isinstance(shield.admit(self.message()), Permit)

    def test_no_message_makes_it_raise(self) -> None:
        """Odd messages are admitted or refused, whatever became of the ones before."""
        shield, clock = self.make()
        for outcome in (*Outcome, None):
            for odd in ODD_MESSAGES:
                verdict = shield.admit(odd())
                if isinstance(verdict, OverLimit):
                    verdict.end(End.DROPPED)
                elif outcome is None:
                    verdict.cancel()
                else:
                    verdict.settle(outcome)
                clock.advance(0.001)
        assert shield.plugin_errors == {}
        assert shield.ledger().balanced
        assert shield.ledger().in_flight == 0

    def test_a_line_and_its_wait_can_be_told_of_any_message(self) -> None:
        """Lines are hashable; a wait is a number of seconds, or None."""
        policy = self.make()[0].rules[0].policies[0]
        for odd in ODD_MESSAGES:
            hash(policy.line(odd()))
        wait_s = policy.wait_s(3, 300)
        assert wait_s is None or wait_s >= 0

    def test_the_delay_of_any_message_is_a_time(self) -> None:
        """A finite number of seconds that is not negative, and asking for it changes nothing."""
        policy = self.make()[0].rules[0].policies[0]
        for odd in ODD_MESSAGES:
            message = odd()
            first_s = policy.delay_s(message, 1_000.0)
            assert 0.0 <= first_s < inf
            assert policy.delay_s(message, 1_000.0) == first_s

    def test_pressure_is_a_part_and_whole_while_it_refuses(self) -> None:
        """From 0 to 1, for any message; 1 for one that is refused; and asking changes nothing."""
        shield, clock = self.make()
        policy = shield.rules[0].policies[0]
        self._fill(shield)
        for odd in (self.message, *ODD_MESSAGES):
            message = odd()
            refusal = policy.check(message, clock.now())
            pressure = policy.pressure(message, clock.now())
            assert 0.0 <= pressure <= 1.0
            assert refusal is None or pressure == 1.0
            assert 0.0 <= policy.excess(message, clock.now()) <= 1.0
            assert (policy.check(message, clock.now()) is None) == (refusal is None)

    def test_its_status_is_numbers_and_texts_by_name(self) -> None:
        """Of a fresh policy and of a full one."""
        shield, clock = self.make()
        for _ in range(2):
            for name, value in shield.rules[0].policies[0].status(clock.now()).items():
                assert name
                assert value is None or isinstance(value, float | int | str)
            self._fill(shield)

    def test_a_forked_childs_policy_takes_over(self) -> None:
        """It inherits from its predecessor, and still decides."""
        old, clock = self.make()
        self._fill(old)
        new = self.make()[0].rules[0].policies[0]
        new.inherit(old.rules[0].policies[0])
        verdict = new.check(self.message(), clock.now())
        assert verdict is None or isinstance(verdict, Refusal)

    def test_a_key_that_it_does_not_know_is_refused(self) -> None:
        """A misspelt key of its table is a SettingsError that names it."""
        rule = {"match": "*", self.name: {"no_such_key_": 1}}
        problems = problems_of({"rules": [rule]}, self.plugins)
        assert any(f"rules[0].{self.name}" in problem for problem in problems)
        assert any("no_such_key_" in problem for problem in problems)

    def _fill(self, shield: Shield) -> list[Permit]:
        """Offer ordinary messages until one is refused; return the permits."""
        permits: list[Permit] = []
        while len(permits) < self.most:
            verdict = shield.admit(self.message())
            if isinstance(verdict, OverLimit):
                verdict.end(End.DROPPED)
                break
            permits.append(verdict)
        return permits
