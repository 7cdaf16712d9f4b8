"""What the demo's bars show: a rate against its quota, or a queue against its bound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from shield.accounts import Ledger

WINDOW_S = 1.0
CELLS = 20


@dataclass(frozen=True, slots=True)
class Reading:
    """A value: as it is now, and the highest one so far."""

    now: int = 0
    peak: int = 0


class Meter(ABC):
    """Reads one producer's value, again and again, and keeps the highest."""

    def __init__(self) -> None:
        self._peak = 0

    def read(self, elapsed_s: float, ledger: Ledger) -> Reading:
        """Take note of the producer's part of the ledger and return the value."""
        now = self.value(elapsed_s, ledger)
        self._peak = max(self._peak, now)
        return Reading(now, self._peak)

    @abstractmethod
    def value(self, elapsed_s: float, ledger: Ledger) -> int:
        """Return the value now."""


class RateMeter(Meter):
    """Messages offered over the last second."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: deque[tuple[float, int]] = deque([(-WINDOW_S, 0)])

    def value(self, elapsed_s: float, ledger: Ledger) -> int:
        """Return messages a second."""
        self._seen.append((elapsed_s, ledger.offered))
        while len(self._seen) > 2 and self._seen[1][0] <= elapsed_s - WINDOW_S:
            self._seen.popleft()
        then_s, before = self._seen[0]
        return round((ledger.offered - before) / max(elapsed_s - then_s, WINDOW_S))


class FillMeter(Meter):
    """Messages in a client's queue, not written yet."""

    def __init__(self, length: Callable[[], int]) -> None:
        super().__init__()
        self._length = length

    def value(self, elapsed_s: float, ledger: Ledger) -> int:
        """Return how many."""
        return self._length()


@dataclass(frozen=True, slots=True)
class Gauge(ABC):
    """A limit, and how what is measured against it is drawn and said."""

    limit: int
    mark: ClassVar[int]
    """At which of a bar's cells the limit stands."""
    unit: ClassVar[str]
    kind: ClassVar[str]

    @abstractmethod
    def meter(self) -> Meter:
        """Return what reads the value in one run."""

    def text(self, value: int) -> str:
        """Return a value and the limit in words."""
        return f"{value:,}{self.unit} of {self.limit:,}{self.unit}"


@dataclass(frozen=True, slots=True)
class RateGauge(Gauge):
    """A quota, in messages a second; a bar reaches to five times as many."""

    mark = CELLS // 5
    unit = "/s"
    kind = "quota_per_second"

    def meter(self) -> Meter:
        """Count what is offered."""
        return RateMeter()


@dataclass(frozen=True, slots=True)
class FillGauge(Gauge):
    """A queue's bound, in messages, at the end of the bar."""

    length: Callable[[], int]
    mark = CELLS
    unit = ""
    kind = "queue_bound"

    def meter(self) -> Meter:
        """Look at the queue."""
        return FillMeter(self.length)
