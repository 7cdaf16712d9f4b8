"""`confirm_latency`: hold the number in flight down while the broker answers slower than it can."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from pydantic import Field

from shield import Message, Policy, Refusal, Rule, StrictModel, hookimpl


class ConfirmLatencySettings(StrictModel):
    """How slow is too slow, and what may be in flight all the same."""

    over_baseline: float = Field(default=3.0, gt=1, allow_inf_nan=False)
    """How many times the baseline the recent latency may be."""
    min_in_flight: int = Field(default=200, ge=1)
    """So many messages may be unconfirmed however slow the broker is."""


class ConfirmLatency(Policy):
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
    answers nothing at all, which `in_flight`, `queue` and `confirm_window` notice.

    Example:
        confirm_latency = { over_baseline = 3.0, min_in_flight = 200 }
    """

    Settings = ConfirmLatencySettings
    directions = frozenset({"publish"})
    shorthand = "over_baseline"
    listens = True
    goes_by = frozenset({"latency", "in_flight"})

    def __init__(self, settings: ConfirmLatencySettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._most = settings.over_baseline
        self._min_in_flight = settings.min_in_flight

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit while little is in flight, or the latency is near its baseline or unknown."""
        signals = message.signals
        if signals is None:
            return None
        if (signals.in_flight or 0) + (signals.queue_messages or 0) < self._min_in_flight:
            return None
        ratio = signals.latency.over_baseline(now)
        if ratio is None or ratio <= self._most:
            return None
        return Refusal(self, "confirm latency", None)

    def pressure(self, message: Message, now: float) -> float:
        """Return how near to its limit is the one of the two that is farther from it."""
        signals = message.signals
        ratio = None if signals is None else signals.latency.over_baseline(now)
        if signals is None or ratio is None:
            return 0.0
        unanswered = (signals.in_flight or 0) + (signals.queue_messages or 0)
        slow = (ratio - 1.0) / (self._most - 1.0)
        return min(1.0, max(0.0, slow), unanswered / self._min_in_flight)

    def line(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `confirm_latency`."""
    return {"confirm_latency": ConfirmLatency}
