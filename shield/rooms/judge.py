"""The verdict of all policies that cover a message, and what they charge for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shield.flow import Flow, Take
from shield.hooks import Hooks
from shield.lines import LAST, Lines
from shield.message import Message
from shield.plugin_results import FAILED_RETRY_S, delay_of, refusal_of
from shield.policy import Policy
from shield.refusals import Refusals
from shield.verdict import OverLimit, Permit, Refusal, Verdict


class Judge:
    """Asks policies, in file order, and isolates one that raises. The core's lock covers all."""

    __slots__ = ("_hooks", "_lines", "_refusals", "refused")

    def __init__(self, lines: Lines, hooks: Hooks, refusals: Refusals) -> None:
        self._lines = lines
        self._refusals = refusals
        self._hooks = hooks
        self.refused: dict[Policy, Message] = {}
        """What each policy has refused last."""

    def verdict(self, flow: Flow, message: Message, now: float) -> Verdict:
        """Ask every policy where nobody waits: the short way, and that of most messages."""
        if not self._lines:
            try:
                for check in flow.checks:
                    if check(message, now) is not None:
                        break
                else:
                    verdict = self.take(flow, message, now)
                    if type(verdict) is OverLimit:
                        self.count_refused(verdict, now)
                    return verdict
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
                passed_unasked.add(policy)
                refusal = self._failed(policy, error)
            if refusal is None:
                continue
            if not policy.rule.shadow:
                return OverLimit(flow, message, refusal)
            passed_unasked.update(policy.rule.policies)
            if number == LAST:
                flow.account.refused(refusal.key)
        return self.take(flow.without(passed_unasked) if passed_unasked else flow, message, now)

    def would_admit(self, policy: Policy, message: Message, now: float) -> bool:
        """Tell whether a policy has nothing against a message that arrives now."""
        try:
            return self._ask(policy, message, now, LAST) is None
        except Exception as error:
            self._hooks.failed(policy, error)
            return self._hooks.fail_open

    def _ask(self, policy: Policy, message: Message, now: float, number: float) -> Refusal | None:
        refusal = refusal_of(policy, policy.check(message, now))
        if self._lines:
            return self._lines.refusal(policy, message, number, refusal)
        return refusal

    def _failed(self, policy: Policy, error: Exception) -> Refusal | None:
        """Count a policy's failure; return the refusal that it means where plugins must not fail.

        Of Shield's own making, for its `refuse` may be what has failed; with a time, after which
        it may be well again.
        """
        self._hooks.failed(policy, error)
        if self._hooks.fail_open:
            return None
        return Refusal(policy, "the policy failed", FAILED_RETRY_S)

    def take(self, flow: Flow, message: Message, now: float) -> Verdict:
        """Charge a message that is admitted; where a policy fails at that, refuse it after all.

        The latter only where plugins must not fail: then what the others took is given back.
        """
        for take in flow.takes:  # `Hooks.tell`, without its call
            try:
                take(message, now)
            except Exception as error:
                if self.fails_at(take, error):
                    return self._take_back(flow, message, take, flow.takes.index(take))
        permit = Permit(flow, message)
        if flow.delays:
            permit.hold_s = 0.0
            for delay_s in flow.delays:
                try:
                    permit.hold_s = max(permit.hold_s, delay_of(delay_s(message, now)))
                except Exception as error:
                    if self.fails_at(delay_s, error):
                        return self._take_back(flow, message, delay_s, len(flow.takes))
        return permit

    def fails_at(self, method: Callable[..., object], error: Exception) -> bool:
        """Count that a policy's method has failed; tell whether that refuses the message."""
        self._hooks.failed(method, error)
        return not (self._hooks.fail_open or _policy_of(method).rule.shadow)

    def _take_back(
        self, flow: Flow, message: Message, failed: Callable[..., object], taken: int
    ) -> OverLimit:
        """Give back what the first so many took, and refuse the message for the one that failed."""
        self.give_back(flow.takes[:taken], message)
        return OverLimit(
            flow, message, Refusal(_policy_of(failed), "the policy failed", FAILED_RETRY_S)
        )

    def give_back(self, takes: Iterable[Take], message: Message) -> None:
        """Undo what these took: their message is not admitted after all."""
        policies = map(_policy_of, takes)
        self._hooks.tell((p.give_back for p in policies if p.overrides("give_back")), message)

    def count_refused(self, over: OverLimit, now: float) -> None:
        """Count a refusal, and note the time of one that tells of load."""
        over.flow.account.refused(over.refusal.key)
        self.refused[over.refusal.policy] = over.message
        self._refusals.note(over, now)
        if over.refusal.policy.tells_of_load and not over.message.aside:
            over.rule.refused_s = now


def _policy_of(method: Callable[..., object]) -> Policy:
    policy: Policy = method.__self__  # type: ignore[attr-defined]
    return policy
