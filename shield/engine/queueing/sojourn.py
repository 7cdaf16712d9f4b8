"""What waits in a queue of Shield's own, as that of RabbitMQ's write thread, or of a consumer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

from shield.capabilities import LimitsSojourn
from shield.delivery import Delivery
from shield.engine.core import Component, Core
from shield.engine.queueing.sojourn_monitor import SojournMonitor, WaitingMessage
from shield.engine.queueing.wait_queue import wake_all
from shield.events import Kind
from shield.plugin_results import flag_of, refusal_of
from shield.verdict import OverLimit, Permit, Refusal


class Sojourns(Component):
    """What policies say of a message that waits; it may be refused after all."""

    def standing(self, destination: str, consumer: str) -> SojournMonitor | None:
        """Return what asks how long deliveries from there may wait; None where no rule bounds it.

        For one queue, in which they wait to be handed over.
        """
        flow = self._core.flow_of(Delivery(destination, 0, consumer))
        return SojournMonitor(flow) if flow.waits else None

    def waited(self, permit: WaitingMessage, waited_s: float, now: float) -> Refusal | None:
        """Return the first refusal of a message that waits, and stands first; None for none."""
        core = self._core
        with core.lock:
            return next(_refusals(core, permit, waited_s, now, shadow=False), None)

    def leaves(self, permit: Permit, waited_s: float, now: float) -> None:
        """Hear that a message leaves its queue; count what rules in shadow have against it."""
        core = self._core
        with core.lock:
            for refusal in _refusals(core, permit, waited_s, now, shadow=True):
                permit.flow.account.refused(refusal.key)

    def newest_first(self, permit: WaitingMessage, now: float) -> bool:
        """Tell whether a policy wants those to leave first that came last."""
        hooks = self._core.hooks
        with self._core.lock:
            return any(
                hooks.ask(
                    cast(LimitsSojourn, policy).newest_first, flag_of, False, permit.message, now
                )
                for policy in permit.waits
                if not policy.rule.shadow
            )

    def refuse(self, permit: Permit, refusal: Refusal) -> OverLimit | None:
        """Turn a permit whose send never began into a verdict over the limit, whose chain acts.

        It stays in flight until that has come to its end. None where the permit is settled.
        """
        core = self._core
        with core.lock:
            core.pick_up_answers()
            if not permit.open:
                return None
            over = OverLimit(permit.flow, permit.message, refusal)
            try:
                core.claims.add(over)
                core.conclude(permit, None, None, core.now())
            except BaseException:
                if permit.held:  # not begun
                    core.claims.discard(over)
                raise
            core.judge.count_refused(over, core.now())
            woken = core.lines.first()
        wake_all(woken)
        if core.hooks.observers:
            core.hooks.report(Kind.OVER_LIMIT, over.message, over)
        if core.hooks.unlogged:
            core.hooks.log_what_waits()
        return over


def _refusals(
    core: Core, permit: WaitingMessage, waited_s: float, now: float, *, shadow: bool
) -> Iterator[Refusal]:
    """Ask policies; one that raises refuses nothing: that it waits is no reason to lose it."""
    for policy in permit.waits:
        if policy.rule.shadow is shadow:
            read = partial(refusal_of, policy)
            question = cast(LimitsSojourn, policy).check_waiting
            refusal = core.hooks.ask(question, read, None, permit.message, waited_s, now)
            if refusal is not None:
                yield refusal
