"""How much of what was offered lately was admitted, and whether there was pressure at all."""

from __future__ import annotations

from collections import deque
from math import sqrt

from shield.plugins.shed.criticality import NAMES

SLICE_S = 0.1
SLICES = 5
MINIMUM = 20
MORE = 1.1
"""So many times what was admitted lately may be let in front of the bounds."""
IDLE = 0.05
"""A pressure below which what answers may have nothing to do, so that a free place costs."""


class Slice:
    """A tenth of a second."""

    __slots__ = ("admitted", "begun", "low", "offered", "peak")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.offered = [0] * len(NAMES)
        """By rank."""
        self.admitted = 0
        self.peak = 0.0
        self.low = 1.0
        """The highest and the lowest pressure."""


class Balance:
    """Offered and admitted over the last half second, in tenths. Not locked."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: deque[Slice] = deque(maxlen=SLICES)

    def offer(self, now: float, pressure: float, rank: int) -> None:
        """Count a message of that rank that is offered, at that pressure."""
        if not self._slices or now - self._slices[-1].begun >= SLICE_S:
            self._slices.append(Slice(now))
        newest = self._slices[-1]
        newest.offered[rank] += 1
        newest.peak = max(newest.peak, pressure)
        newest.low = min(newest.low, pressure)

    def admit(self, messages: int) -> None:
        """Count what was admitted; below zero, what was not sent after all."""
        if self._slices:
            self._slices[-1].admitted += messages

    def excess(self, now: float, above: float) -> float:
        """Return which part of what is offered is too much, by what was admitted lately.

        0 where there was no pressure above that, or too little to judge by.
        """
        recent = self._recent(now)
        offered = sum(sum(each.offered) for each in recent)
        if offered < MINIMUM or max(each.peak for each in recent) <= above:
            return 0.0
        return max(0.0, 1.0 - MORE * sum(each.admitted for each in recent) / offered)

    def needed_above(self, rank: int, places: float, now: float) -> float:
        """Return how many of so many places those above a rank are about to need.

        With h what was offered of them lately, as a part of what was admitted, by Little's law the
        part h of all places, and one standard deviation on top. 0 where places have been empty:
        to keep one free would cost what it could have done; and where not all were taken anew
        within half a second: how full they are says enough then.
        """
        recent = self._recent(now)
        admitted = sum(each.admitted for each in recent)
        if admitted < places or min(each.low for each in recent) < IDLE:
            return 0.0
        offered = sum(sum(each.offered[rank + 1 :]) for each in recent)
        needed = min(1.0, offered / admitted) * places
        return needed + sqrt(needed)

    def _recent(self, now: float) -> list[Slice]:
        return [each for each in self._slices if now - each.begun < SLICE_S * SLICES]
