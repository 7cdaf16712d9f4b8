"""The verdict of all policies that cover a message, and what they charge for it."""

from __future__ import annotations

from shield.flow import Flow
from shield.hooks import Hooks
from shield.lines import LAST, Lines
from shield.message import Message
from shield.policy import Policy
from shield.verdict import OverLimit, Permit, Refusal, Verdict


class Judge:
    """Asks policies, in file order, and isolates one that raises. The core's lock covers all."""

    __slots__ = ("_hooks", "_lines")

    def __init__(self, lines: Lines, hooks: Hooks) -> None:
        self._lines = lines
        self._hooks = hooks

    def verdict(self, flow: Flow, message: Message, now: float) -> Verdict:
        """Ask every policy where nobody waits: the short way, and that of most messages."""
        if not self._lines:
            try:
                for check in flow.checks:
                    if check(message, now) is not None:
                        break
                else:
                    return self.take(flow, message, now)
            except Exception:
                pass  # the long way asks again and finds out who it was
        verdict = self.verdict_in_turn(flow, message, now, LAST)
        if isinstance(verdict, OverLimit):
            self.count_refused(verdict, now)
        return verdict

    def verdict_in_turn(self, flow: Flow, message: Message, now: float, number: float) -> Verdict:
        """Ask every policy in turn, behind those who wait with a lower number."""
        passed_unasked: set[Policy] = set()
        for policy in flow.policies:
            if policy in passed_unasked:
                continue
            try:
                refusal = self._ask(policy, message, now, number)
            except Exception as error:
                self._hooks.failed(policy, error)
                passed_unasked.add(policy)
                refusal = None if self._hooks.fail_open else policy.refuse("the policy failed")
            if refusal is None:
                continue
            if not policy.rule.shadow:
                return OverLimit(flow, message, refusal)
            passed_unasked.update(policy.rule.policies)
            if number == LAST:
                flow.account.over_limit[refusal.key] += 1
        return self.take(flow.without(passed_unasked) if passed_unasked else flow, message, now)

    def would_admit(self, policy: Policy, message: Message, now: float) -> bool:
        """Tell whether a policy has nothing against a message that arrives now."""
        try:
            return self._ask(policy, message, now, LAST) is None
        except Exception as error:
            self._hooks.failed(policy, error)
            return self._hooks.fail_open

    def _ask(self, policy: Policy, message: Message, now: float, number: float) -> Refusal | None:
        refusal = policy.check(message, now)
        if self._lines:
            return self._lines.refusal(policy, message, number, refusal)
        return refusal

    def take(self, flow: Flow, message: Message, now: float) -> Permit:
        """Charge a message that is admitted."""
        for take in flow.takes:  # `Hooks.tell`, without its call
            try:
                take(message, now)
            except Exception as error:
                self._hooks.failed(take, error)
        permit = Permit(flow, message)
        if flow.delays:
            permit.hold_s = self._delay_s(flow, message, now)
        return permit

    def _delay_s(self, flow: Flow, message: Message, now: float) -> float:
        """Return the longest time that a policy wants an admitted message to be held back."""
        return max(0.0, *(self._hooks.ask(delay_s, 0.0, message, now) for delay_s in flow.delays))

    def count_refused(self, over: OverLimit, now: float) -> None:
        """Count a refusal, and note the time of one that tells of load."""
        over.flow.account.over_limit[over.refusal.key] += 1
        if over.refusal.policy.tells_of_load and not over.message.aside:
            over.rule.refused_s = now
