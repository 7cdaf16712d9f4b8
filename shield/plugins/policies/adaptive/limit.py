"""What an algorithm is given, and what it gives: a limit between two bounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the broker.

    Args:
        now: monotonic seconds.
        latency_s: what answers take at the moment, without the client's queue; None if unknown.
        over_baseline: that, as a multiple of what they take at best; None if unknown.
        expected: up to which multiple is expected.
        overloaded: whether this answer was one of too much load.
        in_flight: how many were unanswered before it, this one included.
    """

    now: float
    latency_s: float | None
    over_baseline: float | None
    expected: float
    overloaded: bool
    in_flight: int

    @property
    def is_slow(self) -> bool:
        """Whether the answer says that it is too much."""
        return self.overloaded or (
            self.over_baseline is not None and self.over_baseline > self.expected
        )


class Limit(ABC):
    """How much may be in flight; begins at its upper bound and never leaves the two. Not locked."""

    def __init__(self, low: float, high: float) -> None:
        self._low = low
        self._high = high
        self.limit = high

    def move_to(self, limit: float) -> None:
        """Set the limit, within the bounds."""
        self.limit = min(self._high, max(self._low, limit))

    @abstractmethod
    def sample(self, sample: Sample) -> None:
        """Learn from one answer."""
