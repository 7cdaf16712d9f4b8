"""`probabilistic_throttle`: send less by chance while the broker turns too much of it down."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from pydantic import Field

from shield import Message, Outcome, Policy, Rule, StrictModel, Traits, hookimpl
from shield.capabilities import CarriesOver, Observable
from shield.plugins.policies.by_chance import ByChance
from shield.policy import PUBLISH
from shield.units import Share

SLICE_S = 3.0
SLICES = 20


class ProbabilisticThrottleSettings(StrictModel):
    """How much more may be offered than is accepted, and how many it takes to judge."""

    k: float = Field(default=2.0, ge=1, allow_inf_nan=False)
    """How many times what is accepted may be tried; less is stricter."""
    minimum: int = Field(default=20, ge=1)
    """How many tries of the last minute there must be; with fewer, messages are admitted."""
    most: Share = 0.95
    """The largest part to refuse, so that what passes finds out soon that the broker is well."""


class AcceptSlice:
    """Three seconds' requests and accepts."""

    __slots__ = ("accepts", "begun", "requests")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.requests = self.accepts = 0


class ProbabilisticThrottle(ByChance, Observable, CarriesOver):
    """Refuses by chance, ever more of what is offered, while the broker accepts too little of it.

        p = max(0, (requests - k * accepts) / (requests + 1)), over 60 s in 20 slices
        p is `most` at the most

    The adaptive throttling of clients in "Site Reliability Engineering" (Beyer et al., 2016,
    chapter 21). A request counts once it is answered, as delivered or as overloaded, or refused
    here: what is in flight has neither been accepted nor turned down. What failed for another
    reason is no request. With fewer than `minimum` requests nothing is refused, for with one
    failure alone p would be a half.

    Chance is drawn once for a message, so that who asks again gets the same answer until p has
    changed. Beside `shed`, that policy chooses who is refused, and this one says how many.

    `most` is not in the book: in an outage at 100 messages a second the formula alone comes to let
    one message a minute pass, and takes six minutes to recover; with 95% it takes less than three.
    Bad at: a broker that turns down the same part of however little it is offered; there p rises
    to `most`.

    Example:
        probabilistic_throttle = { k = 2.0, minimum = 20 }
    """

    Settings = ProbabilisticThrottleSettings
    traits = Traits(directions=PUBLISH)
    shorthand = "k"
    reason = "throttled"

    def __init__(self, settings: ProbabilisticThrottleSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._k = settings.k
        self._minimum = settings.minimum
        self._most = settings.most
        self._slices: deque[AcceptSlice] = deque()
        self._requests = self._accepts = 0

    def on_offer(self, message: Message, now: float) -> None:
        """Draw for the message, and count it as a request where it is to be refused."""
        if self.draw(message) < self.rejection_share(message, now):
            self._count(now, accepted=False)

    def release(self, message: Message, outcome: Outcome, now: float) -> None:
        """Count an answer as a request, accepted or not."""
        if outcome is not Outcome.FAILED:
            self._count(now, accepted=outcome is Outcome.DELIVERED)

    def pressure(self, message: Message, now: float) -> float:
        """Return 1 for what is refused, else the part of all that is."""
        return 1.0 if self.check(message, now) is not None else self.rejection_share(message, now)

    def rejection_share(self, message: Message, now: float) -> float:
        """Return p."""
        requests, accepts = self._requests, self._accepts
        for old in self._slices:
            if now - old.begun < SLICE_S * SLICES:
                break
            requests -= old.requests
            accepts -= old.accepts
        if requests < self._minimum:
            return 0.0
        return min(self._most, max(0.0, (requests - self._k * accepts) / (requests + 1)))

    def status(self, now: float) -> Mapping[str, float | str | None]:
        """Show p."""
        return {"refused_share": self.rejection_share(Message("", 0), now)}

    def carry_over(self, old: Policy) -> None:
        """Keep what was counted."""
        if isinstance(old, ProbabilisticThrottle):
            self._slices = old._slices
            self._requests, self._accepts = old._requests, old._accepts

    def _count(self, now: float, *, accepted: bool) -> None:
        slices = self._slices
        while slices and now - slices[0].begun >= SLICE_S * SLICES:
            old = slices.popleft()
            self._requests -= old.requests
            self._accepts -= old.accepts
        if not slices or now - slices[-1].begun >= SLICE_S:
            slices.append(AcceptSlice(now))
        slices[-1].requests += 1
        self._requests += 1
        if accepted:
            slices[-1].accepts += 1
            self._accepts += 1

    def retry_after_s(self, now: float) -> float:
        """Return when the oldest slice is forgotten, three seconds at the most."""
        oldest = next(s.begun for s in self._slices if now - s.begun < SLICE_S * SLICES)
        return min(SLICE_S, oldest + SLICE_S * SLICES - now)


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `probabilistic_throttle`."""
    return {"probabilistic_throttle": ProbabilisticThrottle}
