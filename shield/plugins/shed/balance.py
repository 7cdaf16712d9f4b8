"""How much of what was offered lately was admitted, and whether there was pressure at all."""

from __future__ import annotations

from collections import deque

SLICE_S = 0.1
SLICES = 5
MINIMUM = 20
MORE = 1.1
"""So many times what was admitted lately may be let in front of the bounds."""


class Slice:
    """A tenth of a second."""

    __slots__ = ("admitted", "begun", "offered", "peak")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.offered = self.admitted = 0
        self.peak = 0.0


class Balance:
    """Offered and admitted over the last half second, in tenths. Not locked."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: deque[Slice] = deque(maxlen=SLICES)

    def offer(self, now: float, pressure: float) -> None:
        """Count a message that is offered, at that pressure."""
        if not self._slices or now - self._slices[-1].begun >= SLICE_S:
            self._slices.append(Slice(now))
        newest = self._slices[-1]
        newest.offered += 1
        newest.peak = max(newest.peak, pressure)

    def admit(self, messages: int) -> None:
        """Count what was admitted; below zero, what was not sent after all."""
        if self._slices:
            self._slices[-1].admitted += messages

    def excess(self, now: float, above: float) -> float:
        """Return which part of what is offered is too much, by what was admitted lately.

        0 where there was no pressure above that, or too little to judge by.
        """
        recent = [each for each in self._slices if now - each.begun < SLICE_S * SLICES]
        offered = sum(each.offered for each in recent)
        if offered < MINIMUM or max(each.peak for each in recent) <= above:
            return 0.0
        return max(0.0, 1.0 - MORE * sum(each.admitted for each in recent) / offered)
