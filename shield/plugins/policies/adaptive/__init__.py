"""`adaptive`: a bound on what is unanswered that finds its own size by how the broker answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from shield import Message, Outcome, Policy, Refusal, Rule, StrictModel, Traits, hookimpl
from shield.capabilities import BoundsInFlight, CarriesOver, Observable
from shield.plugins.policies.adaptive.aimd import StabilizingAimd
from shield.plugins.policies.adaptive.gradient2 import Gradient2
from shield.plugins.policies.adaptive.limit import Limit, Sample
from shield.policy import PUBLISH

ALGORITHMS: dict[str, type[Limit]] = {"aimd": StabilizingAimd, "gradient2": Gradient2}


class AdaptiveSettings(StrictModel):
    """The bounds of the limit, and how it moves between them."""

    algorithm: Literal["aimd", "gradient2"] = "aimd"
    """`aimd` is simple and holds still, `gradient2` follows a latency that drifts."""
    min: int = Field(default=20, ge=1)
    """So many messages may be unanswered however slow the broker is."""
    max: int = Field(default=1000, ge=1)
    """So many at the most; also where it starts."""
    over_baseline: float = Field(default=3.0, gt=1, allow_inf_nan=False)
    """For `aimd`: how many times the lowest latency of the last minutes is still expected."""

    @model_validator(mode="after")
    def _fit_together(self) -> AdaptiveSettings:
        if self.min > self.max:
            raise ValueError(
                f"min is {self.min} and max {self.max}; allowed is a min up to the max"
            )
        if self.algorithm != "aimd" and "over_baseline" in self.model_fields_set:
            raise ValueError(f'over_baseline: allowed only with "aimd", not {self.algorithm!r}')
        return self


class Adaptive(Policy, BoundsInFlight, Observable, CarriesOver):
    """Refuses beyond a number in flight that follows how fast, and whether, the broker answers.

    A concurrency limit that is learned (Netflix's concurrency-limits, 2018). It starts at `max`,
    which costs nothing while the broker is well, and comes down where answers take longer than
    they should or tell of overload (`Outcome.OVERLOADED`); failures of another kind teach
    nothing. The two algorithms are `StabilizingAimd` and `Gradient2`.

    The latency is the client's signal (`message.signals.latency`): from the wire to the answer,
    without the time in the client's own queue or batch, which would pass for overload. Of a client
    that gives none, only overloads teach. One limit holds for all that the rule covers, so that a
    rule should cover one broker. `Shield.status` shows it as `limit`.

    Bad at: a broker that stops to answer, which teaches nothing until it does or the client gives
    up; what is in flight is bounded by the last limit meanwhile.

    Example:
        adaptive = { min = 20, max = 1000 }
    """

    Settings = AdaptiveSettings
    traits = Traits(directions=PUBLISH, deferred_settlement=True)
    shorthand = "algorithm"

    def __init__(self, settings: AdaptiveSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._limit = ALGORITHMS[settings.algorithm](settings.min, settings.max)
        self._expected = settings.over_baseline
        self.in_flight = 0
        """How many messages are unanswered."""

    @property
    def limit(self) -> int:
        """How many messages may be unanswered now."""
        return int(self._limit.limit)

    def max_in_flight(self) -> int | None:
        """Return what the limit never exceeds."""
        most: int = self.settings.max
        return most

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit where there is room."""
        return None if self.in_flight < self.limit else Refusal(self, "in flight", None)

    def acquire(self, message: Message, now: float) -> None:
        """Hold a place."""
        self.in_flight += 1

    def cancel(self, message: Message) -> None:
        """Free the place of a send that never began; it teaches nothing."""
        self.in_flight -= 1

    def release(self, message: Message, outcome: Outcome, now: float) -> None:
        """Learn from the answer, then free its place."""
        if outcome is not Outcome.FAILED:
            self._limit.sample(self._sample(message, outcome, now))
        self.in_flight -= 1

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the limit is in use."""
        return min(1.0, self.in_flight / self.limit)

    def status(self, now: float) -> Mapping[str, float | str | None]:
        """Show the limit and what is in flight."""
        return {"limit": self.limit, "in_flight": self.in_flight}

    def carry_over(self, old: Policy) -> None:
        """Keep what was learned; nothing is in flight."""
        if isinstance(old, Adaptive):
            self._limit.move_to(old._limit.limit)

    def _sample(self, message: Message, outcome: Outcome, now: float) -> Sample:
        latency = None if message.signals is None else message.signals.latency
        over_baseline = None if latency is None else latency.over_baseline(now)
        return Sample(
            now=now,
            latency_s=None if latency is None or over_baseline is None else latency.recent,
            over_baseline=over_baseline,
            expected=self._expected,
            overloaded=outcome is Outcome.OVERLOADED,
            in_flight=self.in_flight,
        )


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `adaptive`."""
    return {"adaptive": Adaptive}
