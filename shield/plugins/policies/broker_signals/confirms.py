"""`confirm_latency` and `confirm_window`: how slowly, and how many, confirms come."""

from __future__ import annotations

from pydantic import Field, model_validator

from shield import Message, Rule, Signals, StrictModel
from shield.capabilities import Paces
from shield.plugins.policies.broker_signals.signal_policy import GradedSignalPolicy
from shield.units import Seconds, Share


class ConfirmLatencySettings(StrictModel):
    """How slow is too slow, and what may be in flight all the same."""

    over_baseline: float = Field(default=3.0, gt=1, allow_inf_nan=False)
    """How many times the baseline the recent latency may be."""
    min_in_flight: int = Field(default=200, ge=1)
    """So many messages may be unconfirmed however slow the broker is."""


class ConfirmLatency(GradedSignalPolicy):
    """Refuses while confirms take much longer than at best, and enough is unconfirmed to matter.

        over the limit iff recent latency > over_baseline * baseline
        and messages in flight or waiting to be written >= min_in_flight

    The baseline is the lowest latency of the last minutes, never an absolute: confirms of
    persistent messages take hundreds of milliseconds at a healthy steady load. After TCP Vegas
    (Brakmo and Peterson, 1995), which reads queueing from the ratio of latency to its minimum. In
    effect it is a smaller window while the broker is slow: as confirms come in messages are
    admitted again, which shows whether it still is. A window pays off from 20 to 200 in flight,
    so that at the default holding messages back costs no throughput worth the name. Bad at: a
    broker that is slow from the start, or for longer than the baseline is remembered, or that
    answers nothing at all, which `in_flight`, `client_queue` and `confirm_window` notice.

    Example:
        confirm_latency = { over_baseline = 3.0, min_in_flight = 200 }
    """

    Settings = ConfirmLatencySettings
    shorthand = "over_baseline"
    required_signals = frozenset({"latency", "in_flight"})
    reason = "confirm latency"
    limit_key = "over_baseline"

    def __init__(self, settings: ConfirmLatencySettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._min_in_flight = settings.min_in_flight

    def measure(self, signals: Signals, now: float) -> float:
        """Return the latency in baselines, while enough is in flight for it to matter."""
        if _unanswered(signals) < self._min_in_flight:
            return 0.0
        return signals.latency.over_baseline(now) or 0.0

    def pressure(self, message: Message, now: float) -> float:
        """Return how near to its limit is the one of the two that is farther from it."""
        signals = message.signals
        ratio = None if signals is None else signals.latency.over_baseline(now)
        if signals is None or ratio is None:
            return 0.0
        slow = (ratio - 1.0) / (self.limit - 1.0)
        return min(1.0, max(0.0, slow), _unanswered(signals) / self._min_in_flight)


def _unanswered(signals: Signals) -> int:
    return (signals.in_flight or 0) + (signals.queue_messages or 0)


class ConfirmWindowSettings(StrictModel):
    """From where to delay, how much, and from where to refuse."""

    above: Share = 0.5
    """The part of the window in use above which messages are delayed."""
    delay: Seconds = Field(default=1.0, le=60)
    """The longest delay, reached where the limit is."""
    limit: Share = 1.0
    """The part of the window in use at which messages are over the limit."""

    @model_validator(mode="after")
    def _leaves_room_to_delay(self) -> ConfirmWindowSettings:
        if self.above >= self.limit:
            raise ValueError(
                f"above is {self.above:.0%} and limit {self.limit:.0%}; "
                "allowed is an above that is below the limit"
            )
        return self


class ConfirmWindow(GradedSignalPolicy, Paces):
    """Delays each message by up to `delay` above a part of the window, and refuses at the limit.

    With u the part of the window in use:

        delay_s = delay * (u - above) / (limit - above), from 0 to delay
        over the limit iff u >= limit

    After the rate limiter of outstanding confirms in RabbitMQ's .NET client 7
    (`ThrottlingRateLimiter`: u * 1 s above half of the window). Here the delay grows from zero
    rather than starts with half a second, so that a window a little over half full, as it is at a
    healthy steady load, costs a little. Each publishing thread is delayed by itself.

    Example:
        confirm_window = { above = "50%", delay = "1s", limit = "100%" }
    """

    Settings = ConfirmWindowSettings
    required_signals = frozenset({"window_used"})
    reason = "confirm window"
    limit_key = "limit"
    reaching_is_over = True

    def __init__(self, settings: ConfirmWindowSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._above = settings.above
        self._slope = settings.delay / (settings.limit - settings.above)
        self._most_s = settings.delay

    def measure(self, signals: Signals, now: float) -> float:
        """Return the part of the window in use."""
        return signals.window_used or 0.0

    def delay_s(self, message: Message, now: float) -> float:
        """Return how long to hold the message back: nothing up to `above`, then more and more."""
        used = 0.0 if message.signals is None else self.measure(message.signals, now)
        over = used - self._above
        return min(self._most_s, over * self._slope) if over > 0.0 else 0.0
