"""The one shape of all policies that go by signals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar

from shield import Message, Policy, Refusal, Rule, Signals, Traits
from shield.capabilities import Observable, Queues, ReadsSignals
from shield.policy import PUBLISH


class SignalPolicy(Policy, ReadsSignals, Queues):
    """Refuses while what it measures in a connection's signals is over its limit.

        over the limit iff measure(signals) > limit; or >= limit, where reaching it is over

    What is not known measures 0, so that it refuses nothing. Messages of one connection wait
    behind each other.
    """

    traits = Traits(directions=PUBLISH)
    reason: ClassVar[str]
    """Of its refusals."""
    reaching_is_over: ClassVar[bool] = False
    limit: float = 1.0
    limit_key: ClassVar[str | None] = None
    """The setting that says it, where there is one."""

    def __init__(self, settings: Any, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        if self.limit_key is not None:
            self.limit = getattr(settings, self.limit_key)

    @abstractmethod
    def measure(self, signals: Signals, now: float) -> float:
        """Return what is compared to the limit; 0 where it is not known."""

    def retry_after_s(self, signals: Signals, now: float) -> float | None:
        """Return when to ask again after a refusal; None where a signal ends it."""
        return None

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit unless the measure is known to be over the limit."""
        signals = message.signals
        if signals is None:
            return None
        measured = self.measure(signals, now)
        if measured < self.limit or (measured == self.limit and not self.reaching_is_over):
            return None
        return Refusal(self, self.reason, self.retry_after_s(signals, now))

    def queue_key(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals


class GradedSignalPolicy(SignalPolicy, Observable):
    """One whose measure comes near its limit bit by bit, so that it tells how near it is."""

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the limit is reached."""
        signals = message.signals
        measured = 0.0 if signals is None else self.measure(signals, now)
        if measured <= 0.0:
            return 0.0
        return min(1.0, measured / self.limit) if self.limit else 1.0
