"""A message's end: counted once, whoever brings it, and what it held is released."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from shield.accounts import Account, End
from shield.engine.core import Component, Core
from shield.engine.queueing.wait_queue import Waiter, wake_all
from shield.errors import ShieldError
from shield.events import END_KINDS, Kind
from shield.interrupts import is_from_outside
from shield.verdict import Outcome, OverLimit, Permit

_flow_of = attrgetter("flow")


class Settlement(Component):
    """Where permits are settled, and verdicts over the limit closed."""

    def settle(self, permit: Permit, outcome: Outcome, end: End | None) -> bool:
        """Release what a permit holds and count its end, once; without an end that stays open."""
        core, message = self._core, permit.message
        with core.lock:
            core.pick_up_answers()
            if not permit.open:
                return False
            came_back = message.aside and end is End.DELIVERED
            core.conclude(permit, outcome, end, core.now())
            woken = core.lines.first_released()
        _tell(core, permit, outcome, woken)
        if came_back and core.hooks.observers:
            core.hooks.report(Kind.REDRIVEN, message)
        return True

    def cancel(self, permit: Permit) -> bool:
        """Undo what a permit was charged and count it as failed: its send never began."""
        return self._undo(permit, End.FAILED)

    def expired(self, permit: Permit) -> bool:
        """Undo what a permit was charged and count it as dropped: its time was over before."""
        if not self._undo(permit, End.DROPPED):
            return False
        core, message = self._core, permit.message
        with core.lock:
            permit.flow.account.drops["", "expiration", "expired"] += message.messages
        if core.hooks.observers:
            core.hooks.report(Kind.DROPPED, message, detail="expired")
        return True

    def _undo(self, permit: Permit, end: End) -> bool:
        core = self._core
        with core.lock:
            core.pick_up_answers()
            if not permit.open:
                return False
            core.conclude(permit, None, end, core.now())
            woken = core.lines.first()
        _tell(core, permit, Outcome.FAILED, woken)
        return True

    def delivered(self, permits: Sequence[Permit]) -> None:
        """Settle many as delivered, as `Permit.delivered` does one; who calls has them alone."""
        if all(flow.patient for flow in set(map(_flow_of, permits))):
            self._core.answers.extend(permits)
            if self._core.lines:
                self._core.catch_up()
        else:
            for permit in permits:
                permit.delivered()

    def catch_up(self) -> None:
        """Pick up the answers that wait, and let those who stand first in line ask again."""
        self._core.catch_up()

    def signals_changed(self) -> None:
        """Let those who wait for a signal ask again; costs next to nothing while nobody waits."""
        if self._core.lines:
            self._core.signals_changed()
        if self._core.unlogged:
            self._core.hooks.log_what_waits()

    def end(self, over: OverLimit, end: End | None) -> bool:
        """Close an over-limit message and count its end, once; without an end that stays open."""
        core = self._core
        with core.lock:
            if not over.open:
                return False
            if end is None:
                over.open = False
                core.claims.discard(over)
            else:
                core.end(over, end)
            woken = core.lines.first_released() if over.flow.holders else []
        wake_all(woken)
        if end in END_KINDS and core.hooks.observers:
            core.hooks.report(END_KINDS[end], over.message, over)
        return True

    def interrupted(self, error: BaseException) -> None:
        """Hear that an exception has cut short who had a verdict: its owner may be gone.

        From the first one from outside on, verdicts that nobody holds any more are found.
        """
        if isinstance(error, ShieldError | GeneratorExit):
            return  # the usual end of a chain, or of a wait
        if not isinstance(error, Exception) or is_from_outside(error):
            self._core.struck = True

    def count(self, account: Account, end: End, messages: int) -> None:
        """Count the end of messages whose claims were closed with their ends left open."""
        with self._core.lock:
            account.move("in_flight", end, messages)


def _tell(core: Core, permit: Permit, outcome: Outcome, woken: list[Waiter]) -> None:
    """Tell all who want to hear that it is settled, without the lock."""
    wake_all(woken)
    hooks = core.hooks
    if hooks.listens:
        hooks.after(permit.message, outcome)
    if hooks.observers:
        hooks.report(Kind.SETTLED, permit.message, detail=str(outcome))
    if hooks.unlogged:
        hooks.log_what_waits()
