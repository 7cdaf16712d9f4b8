"""Deliveries that stand in a consumer's queue, where rules bound for how long they may."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from shield.signals import Signals
from shield.verdict import OverLimit, Permit, Refusal, Verdict

if TYPE_CHECKING:
    from shield.delivery import Delivery
    from shield.engine.policy_set import PolicySet
    from shield.message import Message
    from shield.policy import Policy

LOOK_EVERY_S = 0.05
"""How often a consumer looks at what stands first, while nothing may be handed over."""


class WaitingMessage(Protocol):
    """What waits in a queue of Shield's own: a message, and the policies that bound how long."""

    @property
    def waits(self) -> tuple[Policy, ...]:
        """Those that may refuse it while it waits."""
        ...

    @property
    def message(self) -> Message:
        """What they are asked about."""
        ...


class _Waiting(NamedTuple):
    waits: tuple[Policy, ...]
    message: Message


class SojournMonitor:
    """Asks about one queue: deliveries from one place, that wait until they are handed over.

    Its consumer asks about what stands first whenever it looks, also of one that has not waited:
    who is told of late ones alone takes each for an overload. Seconds are of the Shield's clock.

    Args:
        flow: what applies to all of them.
    """

    def __init__(self, flow: PolicySet) -> None:
        self._flow = flow
        self._engine = flow.engine
        self._signals = Signals(flow.engine.clock.now)
        """By this policies tell the queue from others."""

    def refusal(self, delivery: Message, waited_s: float, now: float) -> Refusal | None:
        """Return why what stands first, offered or not, may wait no longer; None where it may."""
        return self._engine.waited(self._place(delivery), waited_s, now)

    def newest_first(self, delivery: Message, now: float) -> bool:
        """Tell whether those that came last are to be handed over first, where order allows it."""
        return self._engine.newest_first(self._place(delivery), now)

    def offer(self, delivery: Delivery, refusal: Refusal | None, now: float) -> Verdict:
        """Offer a delivery, as `receive`; over the limit where it has waited too long.

        Raises:
            Reject: a plugin's before-hook refused it.
        """
        self._place(delivery)
        verdict = self._engine.receive(delivery, now)
        if refusal is None:
            return verdict
        over = verdict if isinstance(verdict, OverLimit) else self._engine.refuse(verdict, refusal)
        assert over is not None  # nobody else has it
        over.refusal = refusal
        return over

    def leaves(self, permit: Permit, waited_s: float, now: float) -> None:
        """Hear that one is handed over: counts what rules in shadow have against it."""
        self._engine.leaves(permit, waited_s, now)

    def _place(self, delivery: Message) -> _Waiting:
        delivery.signals = self._signals
        return _Waiting(self._flow.waits, delivery)
