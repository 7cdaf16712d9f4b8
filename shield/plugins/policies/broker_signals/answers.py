"""`nacks` and `returns`: a limit on the part of a broker's recent answers that are of one kind."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from shield import Rule, Signals, StrictModel
from shield.plugins.policies.broker_signals.signal_policy import GradedSignalPolicy
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


class AnswerShare(GradedSignalPolicy):
    """Refuses while too many of a connection's recent answers are of one kind.

        over the limit iff answers >= minimum and found / answers > above
        over the answers of the last 10 s

    A circuit breaker with a sliding window (M. Nygard, "Release It!"). While it refuses, no new
    answers come, the old ones are forgotten second by second, and it admits again once the share
    has fallen or too few answers are left to judge by: after ten seconds at the latest, which is
    when a broker that still refuses is found out anew. A refusal says when that will be.
    """

    Settings = AnswerShareSettings
    shorthand = "above"
    wakes_on_signal = False
    limit_key = "above"
    kind: ClassVar[Literal["nacks", "returns"]]

    def __init__(self, settings: AnswerShareSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._minimum = settings.minimum

    def measure(self, signals: Signals, now: float) -> float:
        """Return the share; fewer answers than the minimum say nothing."""
        return signals.answers.share(self.kind, now, self._minimum) or 0.0

    def retry_after_s(self, signals: Signals, now: float) -> float:
        """Return how long the share stays above the limit while no answers come."""
        return signals.answers.above_for_s(self.kind, self.limit, self._minimum, now)


class Nacks(AnswerShare):
    """Refuses while too many of the connection's messages of the last ten seconds were nacked.

    RabbitMQ nacks what a queue refuses: one that is full with `x-overflow = "reject-publish"`, or
    one that has failed. The share is that of the whole connection, whatever its destinations;
    where one queue's refusals should not hold up the others, give it a publisher of its own.

        over the limit iff answers >= minimum and nacks / answers > above, over 10 s

    Example:
        nacks = { above = "20%", minimum = 20 }
    """

    kind = "nacks"
    required_signals = frozenset({"nacks"})
    reason = "nacked by the broker"


class Returns(AnswerShare):
    """Refuses while too many of the connection's messages of the last ten seconds came back.

    RabbitMQ returns a mandatory message that no queue is bound for: it costs the broker work and
    reaches nobody, and that many of them mean a binding is gone. The share is that of the whole
    connection, whatever its destinations.

        over the limit iff answers >= minimum and returns / answers > above, over 10 s

    Example:
        returns = { above = "50%", minimum = 20 }
    """

    kind = "returns"
    required_signals = frozenset({"returns"})
    reason = "returned by the broker"
