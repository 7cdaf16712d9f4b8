"""What `nacks` and `returns` share: a limit on one kind of the broker's recent answers."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from shield import Message, Policy, Refusal, Rule, StrictModel
from shield.units import Share


class AnswerShareSettings(StrictModel):
    """The limit, and how many answers it takes to judge."""

    above: Share
    """The part of the last ten seconds' answers above which messages are over the limit."""
    minimum: int = Field(default=20, ge=1)
    """How many answers there must have been; with fewer, messages are admitted."""

    @field_validator("above")
    @classmethod
    def _can_be_exceeded(cls, above: float) -> float:
        if above >= 1:
            raise ValueError('no share is above that; allowed is less than 100%, as "20%"')
        return above


class AnswerShare(Policy):
    """Refuses while too many of a connection's recent answers are of one kind.

        over the limit iff answers >= minimum and found / answers > above
        over the answers of the last 10 s

    A circuit breaker with a sliding window (M. Nygard, "Release It!"). While it refuses, no new
    answers come, the old ones are forgotten second by second, and it admits again once the share
    has fallen or too few answers are left to judge by: after ten seconds at the latest, which is
    when a broker that still refuses is found out anew. A refusal says when that will be.
    """

    Settings = AnswerShareSettings
    directions = frozenset({"publish"})
    shorthand = "above"
    kind: ClassVar[Literal["nacks", "returns"]]
    reason: ClassVar[str]

    def __init__(self, settings: AnswerShareSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._above = settings.above
        self._minimum = settings.minimum

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit unless the share is known to be above the limit."""
        signals = message.signals
        if signals is None:
            return None
        for_s = signals.answers.above_for_s(self.kind, self._above, self._minimum, now)
        return Refusal(self, self.reason, for_s) if for_s > 0.0 else None

    def pressure(self, message: Message, now: float) -> float:
        """Return how near the share is to its limit."""
        signals = message.signals
        share = signals and signals.answers.share(self.kind, now, self._minimum)
        if not share:
            return 0.0
        return min(1.0, share / self._above) if self._above else 1.0

    def line(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals
