"""What every policy promises, as a test class to inherit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from math import inf
from typing import Any, ClassVar

from shield import plugin_results as results
from shield.accounts import End
from shield.capabilities import (
    BoundsInFlight,
    CarriesOver,
    LimitsSojourn,
    Observable,
    Paces,
    Queues,
    Randomized,
    SeesOffers,
)
from shield.message import Message
from shield.policy import Policy
from shield.shield import Shield
from shield.testing.clock import ManualClock
from shield.testing.contract import (
    ODD_MESSAGES,
    expect,
    expect_kind,
    expect_readable,
    problems_of,
    shield_of,
)
from shield.testing.watching import expect_no_growth, expect_quick, in_threads
from shield.verdict import Outcome, OverLimit, Permit, Refusal

MANY = 1_000
"""How many messages show what does not end, or grows."""
FEW_REASONS = 100
"""How many reasons of one policy a Shield counts apart."""
A_DAY_S = 86_400.0


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
        return shield_of(rule, self.plugins, clock), clock

    def test_an_ordinary_message_is_admitted_at_first(self) -> None:
        """A fresh policy admits."""
        shield, _ = self.make()
        expect_kind(shield.admit(self.message()), Permit)

    def test_a_check_changes_nothing(self) -> None:
        """However often it is asked, it admits as many as one that was not asked before."""
        shield, clock = self.make()
        policy = shield.rules[0].policies[0]
        for _ in range(10):
            policy.check(self.message(), clock.now())
        self._expect_as_much_room_as_at_first(shield)

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
        permit = expect_kind(shield.admit(self.message()), Permit)
        assert permit.cancel()
        self._expect_as_much_room_as_at_first(shield)

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
            expect_kind(shield.admit(self.message()), Permit)

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

    def test_what_it_says_is_what_it_may_say(self) -> None:
        """Of any message, fresh and full: another type counts as if it had raised."""
        shield, clock = self.make()
        policy = shield.rules[0].policies[0]
        for _ in range(2):
            for odd in (self.message, *ODD_MESSAGES):
                self._expect_readable(policy, odd(), clock.now())
            self._fill(shield)

    def _expect_readable(self, policy: Policy, message: Message, now: float) -> None:
        expect_readable(lambda: results.refusal_of(policy, policy.check(message, now)))
        if isinstance(policy, LimitsSojourn):
            said = policy.check_waiting(message, 1.0, now)
            expect_readable(lambda: results.refusal_of(policy, said))
            expect_readable(lambda: results.flag_of(policy.newest_first(message, now)))
        if isinstance(policy, Paces):
            expect_readable(lambda: results.delay_of(policy.delay_s(message, now)))
        if isinstance(policy, Queues):
            expect_readable(lambda: results.line_of(policy.queue_key(message)))
            expect_readable(lambda: results.seconds_of(policy.drain_time_s(3, 300)))
        if isinstance(policy, BoundsInFlight):
            expect_readable(lambda: results.bound_of(policy.max_in_flight()))
        if isinstance(policy, Randomized):
            expect_readable(lambda: results.part_of(policy.rejection_share(message, now)))
        if isinstance(policy, Observable):
            expect_readable(lambda: results.part_of(policy.pressure(message, now)))
            expect_readable(lambda: results.status_of(policy.status(now)))

    def test_its_reasons_are_few_and_short(self) -> None:
        """They are counted by, and go into headers: no reason holds what a message says."""
        shield, clock = self.make()
        self._fill(shield)
        policy = shield.rules[0].policies[0]
        refusals = [policy.check(_fresh(n), clock.now()) for n in range(MANY)]
        reasons = {refusal.reason for refusal in refusals if refusal is not None}
        expected = f"{FEW_REASONS} different reasons at the most"
        expect(len(reasons) <= FEW_REASONS, expected, len(reasons))
        for reason in reasons:
            expected = f"a reason of {results.LONGEST_TEXT} characters at the most"
            expect(len(reason) <= results.LONGEST_TEXT, expected, reason)

    def test_it_is_used_by_many_threads(self) -> None:
        """Never by two at once, but by any: it has nothing that is one thread's own."""
        shield, _ = self.make()

        def use(_thread: int) -> None:
            for _ in range(MANY // 8):
                self._ended(shield, self.message())

        in_threads(8, use)
        assert shield.plugin_errors == {}
        assert shield.ledger().balanced
        assert shield.ledger().in_flight == 0

    def test_it_is_quick(self) -> None:
        """It sleeps nowhere, and waits for nothing: all messages of a program wait for it."""
        shield, clock = self.make()
        policy = shield.rules[0].policies[0]
        expect_quick(lambda: self._ended(shield, self.message()), 100, "a message's way")
        if isinstance(policy, Observable):
            expect_quick(lambda: policy.pressure(self.message(), clock.now()), 100, "pressure")
            expect_quick(lambda: policy.status(clock.now()), 100, "status")

    def test_it_keeps_nothing_of_what_has_ended(self) -> None:
        """Neither of messages that are settled, nor of those that are refused."""
        shield, _ = self.make()

        def offer() -> None:
            for _ in range(MANY):
                self._ended(shield, self.message())

        expect_no_growth(offer, 16 * MANY, f"{MANY} messages that have ended")

    def test_it_forgets_who_is_gone(self) -> None:
        """Keys and producers that come once, and never again, do not add up over days."""
        shield, clock = self.make()
        policy, numbers = shield.rules[0].policies[0], count()

        def a_day() -> None:
            for _ in range(MANY):
                message, now = _fresh(next(numbers)), clock.now()
                if isinstance(policy, SeesOffers):
                    policy.on_offer(message, now)
                if policy.check(message, now) is None:
                    policy.acquire(message, now)
                    policy.release(message, Outcome.DELIVERED, now)
            clock.advance(A_DAY_S)

        expect_no_growth(a_day, 64 * MANY, f"{MANY} producers and keys of the day before")

    def test_a_queue_and_its_drain_time_can_be_told_of_any_message(self) -> None:
        """Keys of queues are hashable; a drain time is a number of seconds, or None."""
        policy = self.make()[0].rules[0].policies[0]
        if isinstance(policy, Queues):
            for odd in ODD_MESSAGES:
                hash(policy.queue_key(odd()))
            drain_time_s = policy.drain_time_s(3, 300)
            assert drain_time_s is None or drain_time_s >= 0

    def test_the_delay_of_any_message_is_a_time(self) -> None:
        """A finite number of seconds that is not negative, and asking for it changes nothing."""
        policy = self.make()[0].rules[0].policies[0]
        if not isinstance(policy, Paces):
            return
        for odd in ODD_MESSAGES:
            message = odd()
            first_s = policy.delay_s(message, 1_000.0)
            expect(0.0 <= first_s < inf, "seconds of 0 or more that end", first_s)
            assert policy.delay_s(message, 1_000.0) == first_s

    def test_pressure_is_a_part_and_whole_while_it_refuses(self) -> None:
        """From 0 to 1, for any message; 1 for one that is refused; and asking changes nothing."""
        shield, clock = self.make()
        policy = shield.rules[0].policies[0]
        self._fill(shield)
        for odd in (self.message, *ODD_MESSAGES):
            message = odd()
            refusal = policy.check(message, clock.now())
            if isinstance(policy, Observable):
                pressure = policy.pressure(message, clock.now())
                expect(0.0 <= pressure <= 1.0, "a pressure from 0 to 1", pressure)
                if refusal is not None:
                    expect(pressure == 1.0, "a pressure of 1 where it refuses", pressure)
            if isinstance(policy, Randomized):
                share = policy.rejection_share(message, clock.now())
                expect(0.0 <= share <= 1.0, "a rejection share from 0 to 1", share)
            assert (policy.check(message, clock.now()) is None) == (refusal is None)

    def test_its_status_is_numbers_and_texts_by_name(self) -> None:
        """Of a fresh policy and of a full one."""
        shield, clock = self.make()
        policy = shield.rules[0].policies[0]
        for _ in range(2):
            shown = policy.status(clock.now()) if isinstance(policy, Observable) else {}
            for name, value in shown.items():
                assert name
                assert value is None or isinstance(value, float | int | str)
            self._fill(shield)

    def test_a_forked_childs_policy_takes_over(self) -> None:
        """It carries over what its predecessor has learned, and still decides."""
        old, clock = self.make()
        self._fill(old)
        new = self.make()[0].rules[0].policies[0]
        if isinstance(new, CarriesOver):
            new.carry_over(old.rules[0].policies[0])
        verdict = new.check(self.message(), clock.now())
        expect(verdict is None or isinstance(verdict, Refusal), "None or a Refusal", verdict)

    def test_a_key_that_it_does_not_know_is_refused(self) -> None:
        """A misspelt key of its table is a SettingsError that names it."""
        rule = {"match": "*", self.name: {"no_such_key_": 1}}
        problems = problems_of(rule, self.plugins)
        assert any(f"rules[0].{self.name}" in problem for problem in problems)
        assert any("no_such_key_" in problem for problem in problems)

    def _expect_as_much_room_as_at_first(self, shield: Shield) -> None:
        __tracebackhide__ = True
        fresh, left = len(self._fill(self.make()[0])), len(self._fill(shield))
        expect(left == fresh, f"room for {fresh} messages", f"room for {left}")

    def _ended(self, shield: Shield, message: Message) -> None:
        """Offer a message, and bring it to an end at once."""
        verdict = shield.admit(message)
        if isinstance(verdict, OverLimit):
            verdict.end(End.DROPPED)
        else:
            verdict.delivered()

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


def _fresh(number: int) -> Message:
    """Return a message of a producer and a key that nobody has had before."""
    return Message("orders", 100, f"producer {number}", b"%d" % number)
