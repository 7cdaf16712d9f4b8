"""What a producer is measured against: a quota in messages a second, or its queue's bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

WINDOW_S = 1.0
CELLS = 20
"""Of a bar."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A limit, and how what is measured against it is drawn and said."""

    limit: int
    kind: str
    """The limit's name in JSON."""
    mark: int
    """At which of a bar's cells the limit stands."""
    unit: str = ""
    length: Callable[[], int] | None = None
    """Tells the value; None where that is the messages offered over the last second."""

    def text(self, value: int) -> str:
        """Return a value and the limit in words."""
        return f"{value:,}{self.unit} of {self.limit:,}{self.unit}"


def rate_gauge(per_second: int) -> Gauge:
    """Return that of a quota; a bar reaches to five times as many."""
    return Gauge(per_second, "quota_per_second", CELLS // 5, "/s")


def fill_gauge(bound: int, length: Callable[[], int]) -> Gauge:
    """Return that of a client's queue, whose bound is the end of the bar."""
    return Gauge(bound, "queue_bound", CELLS, length=length)


class Reading(NamedTuple):
    """A value: as it is now, and the highest one so far."""

    now: int = 0
    peak: int = 0


class Meter:
    """Reads one producer's value again and again; on one thread."""

    def __init__(self, gauge: Gauge) -> None:
        self._length = gauge.length
        self._peak = 0
        self._seen = deque([(-WINDOW_S, 0)])

    def read(self, elapsed_s: float, offered: int) -> Reading:
        """Return the value, given how many messages were offered by now."""
        now = self._rate(elapsed_s, offered) if self._length is None else self._length()
        self._peak = max(self._peak, now)
        return Reading(now, self._peak)

    def _rate(self, elapsed_s: float, offered: int) -> int:
        self._seen.append((elapsed_s, offered))
        while len(self._seen) > 2 and self._seen[1][0] <= elapsed_s - WINDOW_S:
            self._seen.popleft()
        then_s, before = self._seen[0]
        return round((offered - before) / max(elapsed_s - then_s, WINDOW_S))
