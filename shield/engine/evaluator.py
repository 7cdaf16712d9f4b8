"""The verdict of all policies that cover a message, and what they charge for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shield.engine.claims import Claims
from shield.engine.hooks import Hooks
from shield.engine.policy_set import PolicySet, Take, undoes
from shield.engine.queueing.wait_queue import LAST, WaitQueues
from shield.engine.reporting.refusal_log import RefusalLog
from shield.interrupts import is_from_outside
from shield.message import Message
from shield.plugin_results import FAILED_RETRY_S, delay_of, refusal_of
from shield.policy import Policy
from shield.verdict import Applied, OverLimit, Permit, Refusal, Verdict

STOCK_EVERY_S = 1.0
"""How often, at the most, a refusal leads to a look at who still holds what."""


class Evaluator:
    """Asks policies, in file order, and isolates one that raises. The core's lock covers all."""

    __slots__ = (
        "_claims",
        "_hooks",
        "_lines",
        "_refusals",
        "_stock_due",
        "_take_stock",
        "refused",
    )

    def __init__(
        self,
        lines: WaitQueues,
        hooks: Hooks,
        refusals: RefusalLog,
        claims: Claims,
        take_stock: Callable[[], object],
    ) -> None:
        self._lines = lines
        self._refusals = refusals
        self._hooks = hooks
        self._claims = claims
        self._take_stock = take_stock
        self._stock_due = float("-inf")
        self.refused: dict[Policy, Message] = {}
        """What each policy has refused last."""

    def verdict(
        self, flow: PolicySet, message: Message, now: float, number: float = LAST
    ) -> Verdict:
        """Ask every policy where nobody waits: the short way, and that of most messages.

        What the pass has found that ends it is kept: nobody is asked a second time. A message that
        comes back stands behind all others, and its refusal is counted nowhere.
        """
        asked = 0
        found: object = None
        if not self._lines:
            try:
                for check in flow.checks:
                    asked += 1
                    found = check(message, now)
                    if found is not None:
                        break
                else:
                    verdict = self.take(flow, message, now)
                    if not verdict.admits and number == LAST:  # no call: nothing strikes before it
                        self._refuses(verdict, now)
                    return verdict
            except Exception as error:
                if is_from_outside(error):
                    raise
                found = error
        if now >= self._stock_due:  # what nobody holds any more keeps nobody out
            self._stock_due = now + STOCK_EVERY_S
            if self._take_stock():
                asked, found = 0, None
        verdict = self.verdict_in_turn(flow, message, now, number, asked, found)
        if not verdict.admits and number == LAST:
            self._refuses(verdict, now)
        return verdict

    def _refuses(self, over: Verdict, now: float) -> None:
        """Count a refusal; from here on it is an open claim."""
        assert isinstance(over, OverLimit)
        try:
            self.count_refused(over, now)
            self._claims.add(over)
        except BaseException:
            self._claims.discard(over)
            raise

    def verdict_in_turn(
        self,
        flow: Applied,
        message: Message,
        now: float,
        number: float,
        asked: int = 0,
        found: object = None,
    ) -> Verdict:
        """Ask every policy in turn, behind those who wait with a lower number.

        Args:
            flow: what applies to the message.
            message: what they are asked about.
            now: in monotonic seconds.
            number: its place among those who wait.
            asked: how many have been asked already, where nobody waits: all but the last of them
                have nothing against it.
            found: what the last of them has returned, or raised.
        """
        passed_unasked: set[Policy] = set()
        for policy in flow.policies[max(0, asked - 1) :]:
            if policy in passed_unasked:
                continue
            try:
                if found is None:
                    refusal = self._ask(policy, message, now, number)
                else:
                    answer, found = found, None
                    refusal = _read(policy, answer)
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

    def take(self, flow: Applied, message: Message, now: float) -> Verdict:
        """Charge a message that is admitted; where a policy fails at that, refuse it after all.

        The latter only where plugins must not fail: then what the others took is given back; as it
        is where an exception from outside strikes.
        """
        taken, permit = 0, Permit(flow, message)
        try:
            for take in flow.takes:  # `Hooks.tell`, without its call
                try:
                    take(message, now)
                except Exception as error:
                    if self.fails_at(take, error):
                        charged, taken = taken, 0
                        return self._take_back(flow, message, take, charged)
                taken += 1
            if flow.delays:
                permit.hold_s = 0.0
                for delay_s in flow.delays:
                    try:
                        permit.hold_s = max(permit.hold_s, delay_of(delay_s(message, now)))
                    except Exception as error:
                        if self.fails_at(delay_s, error):
                            charged, taken = taken, 0
                            return self._take_back(flow, message, delay_s, charged)
            self._claims.add(permit)
        except BaseException:
            self._claims.discard(permit)
            self.give_back(flow.takes[:taken], message)
            raise
        return permit

    def fails_at(self, method: Callable[..., object], error: Exception) -> bool:
        """Count that a policy's method has failed; tell whether that refuses the message."""
        self._hooks.failed(method, error)
        return not (self._hooks.fail_open or _policy_of(method).rule.shadow)

    def _take_back(
        self, flow: Applied, message: Message, failed: Callable[..., object], taken: int
    ) -> OverLimit:
        """Give back what the first so many took, and refuse the message for the one that failed."""
        self.give_back(flow.takes[:taken], message)
        return OverLimit(
            flow, message, Refusal(_policy_of(failed), "the policy failed", FAILED_RETRY_S)
        )

    def give_back(self, takes: Iterable[Take], message: Message) -> None:
        """Undo what these took: their message is not admitted after all."""
        policies = map(_policy_of, takes)
        self._hooks.tell((p.cancel for p in policies if undoes(p)), message)

    def count_refused(self, over: OverLimit, now: float) -> None:
        """Count a refusal, and note the time of one that tells of load."""
        over.flow.account.refused(over.refusal.key)
        self.refused[over.refusal.policy] = over.message
        self._refusals.note(over, now)
        if over.refusal.policy.traits.counts_as_load and not over.message.aside:
            over.rule.refused_s = now


def _read(policy: Policy, found: object) -> Refusal | None:
    """Read what a policy's `check` has returned; raise what it has raised."""
    if isinstance(found, Exception):
        raise found
    return refusal_of(policy, found)


def _policy_of(method: Callable[..., object]) -> Policy:
    policy: Policy = method.__self__  # type: ignore[attr-defined]
    return policy
