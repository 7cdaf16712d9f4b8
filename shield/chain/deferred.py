"""What a consumer does with a delivery over the limit: its chain, without any I/O."""

from __future__ import annotations

import logging
from math import inf
from weakref import WeakKeyDictionary

from shield.accounts import End
from shield.action import Divert, Drop, Wait
from shield.chain.runner import next_step
from shield.verdict import Engine, OverLimit, Permit, Refusal

log = logging.getLogger("shield")
LOG_EVERY_S = 60.0
LOOK_EVERY_S = 0.1
"""When to ask again where only others' acknowledgements can end it; the consumer's own tell it."""
ANEW_S = 1.0
"""How long a delivery whose chain has run out waits before that begins anew."""


class DeferredDelivery:
    """One delivery over the limit, until it is handed over, dropped, or diverted.

    Its consumer asks `next`, does what that says, and asks again. Meanwhile neither it nor what
    comes behind it is handed over: the consumer pauses.

    The chain is that of the rule that refuses now: one that a quota held back may have grown too
    old meanwhile. A chain that runs out, as where an overflow send fails and nothing follows,
    begins anew after a second: a consumer has nobody to raise to, and its broker still has the
    message.

    Args:
        over: the verdict.
        low_mark: to which part the bound that refuses it must have emptied before it is admitted,
            for a consumer that pauses: else it would pause and resume for every message. After a
            second any room will do, lest it wait for others who wait for it.
    """

    def __init__(self, over: OverLimit, low_mark: float = 1.0) -> None:
        self.over = over
        self._low_mark = low_mark
        self._any_room_at_s: float | None = None
        self._engine = over.engine
        self._rule = over.rule
        self._position = 0
        self._until_s: float | None = None
        """Until when an action of the chain lets it wait; None where none does now."""
        self._hopeless = False
        self._anew_at_s = -inf
        """When the chain may begin again that a failed send has brought to its end."""

    def next(self, now: float) -> Permit | Drop | Divert | float:
        """Return what is to be done with it at this time of the Shield's clock.

        A Permit: hand it over. A Drop: it is counted; acknowledge, or skip it. A Divert: send it
        there, then call `diverted` or `failed`. A number: ask again after so many seconds, or
        when something of the rule was acknowledged.
        """
        if self._until_s is not None:
            permit = self._ask(now, self._until_s)
            if permit is not None:
                return permit
            if self.over.rule is not self._rule:
                self._begin()
            elif self._may_wait(self._until_s - now):
                return self._wait_s(now)
            else:
                self._go_on()
        while self._position < len(self._rule.chain):
            step = next_step(self._rule.chain[self._position], self.over)
            if isinstance(step, Drop):
                self.over.end(End.DROPPED)
                return step
            if isinstance(step, Divert):
                return step
            if isinstance(step, Wait) and self._may_wait(step.limit_s):
                self._until_s = now + step.limit_s
                return self._wait_s(now)
            self._position += 1
        permit = self._engine.let_through(self.over) if self._hopeless else None
        if permit is not None:
            return permit
        if not self.stuck:  # else who sent has said so
            _note_run_out(self.over, now)
        self._until_s = now + ANEW_S
        return self._wait_s(now)

    def _ask(self, now: float, until_s: float) -> Permit | None:
        """Ask once more; where only acknowledgements help, not before the low mark is reached."""
        if self._any_room_at_s is None:
            self._any_room_at_s = now + ANEW_S
        bound = self.over.retry_after_s is None and self._low_mark < 1.0
        waits = bound and now < min(self._any_room_at_s, until_s)
        if waits and not self._engine.eased(self.over, self._low_mark):
            return None
        return self._engine.ask_once(self.over)

    def refuse(self, refusal: Refusal, now: float) -> bool:
        """Let the chain act on one that has waited too long by now; then ask `next`.

        False where that has failed a moment ago: it waits on.
        """
        if now < self._anew_at_s:
            return False
        if self._ran_out or self.over.refusal.policy is not refusal.policy:
            self.over.refusal = refusal
            self._begin()
        return True

    def diverted(self) -> None:
        """Count it as overflowed: the send that `next` asked for is confirmed. Acknowledge it."""
        self.over.end(End.OVERFLOWED)

    def failed(self, *, hopeless: bool = False) -> None:
        """Let the chain go on: that send failed.

        Where the message is at fault, so that it would fail again, a chain that runs out does not
        begin anew: the delivery is handed over, as it can neither go elsewhere nor be lost.
        """
        self._hopeless = self._hopeless or hopeless
        self._go_on()
        if self._ran_out:
            self._anew_at_s = self._engine.clock.now() + ANEW_S

    def let_go(self) -> None:
        """Count it as failed: its broker hands it to another consumer, or again later."""
        self.over.end(End.FAILED)

    @property
    def stuck(self) -> bool:
        """Whether its chain has run out because a send failed: it need not hold up others."""
        return self._ran_out and self._anew_at_s > -inf

    def _begin(self) -> None:
        self._rule, self._position, self._until_s = self.over.rule, 0, None

    def _go_on(self) -> None:
        if self._ran_out:
            self._begin()
        else:
            self._position, self._until_s = self._position + 1, None

    @property
    def _ran_out(self) -> bool:
        return self._position >= len(self._rule.chain)

    def _may_wait(self, limit_s: float) -> bool:
        """Tell whether it may wait on: it can be admitted in time, or nothing else is left."""
        asked_s = self.over.retry_after_s or 0.0
        return limit_s > 0 and (self._ran_out or (asked_s <= limit_s and asked_s < inf))

    def _wait_s(self, now: float) -> float:
        asked_s = self.over.retry_after_s
        wait_s = LOOK_EVERY_S if asked_s is None else asked_s
        assert self._until_s is not None
        return min(wait_s, max(0.0, self._until_s - now))


_run_out: WeakKeyDictionary[Engine, tuple[int, float]] = WeakKeyDictionary()
"""By engine: how often a chain ran out that only declined, and when that was last said."""


def _note_run_out(over: OverLimit, now: float) -> None:
    """Say once a minute, with a number, that every action declines and deliveries stand still."""
    times, said_s = _run_out.get(over.engine, (0, -inf))
    times += 1
    if now - said_s >= LOG_EVERY_S:
        said_s = now
        log.warning(
            "rule %s: every action declines a delivery from %s, which waits; its chain begins "
            "anew (%d so far): %s",
            *(over.rule.name, over.message.destination, times, over.declined or over.reason),
        )
    _run_out[over.engine] = times, said_s
