"""How much of what was offered lately was admitted, and whether there was pressure at all."""

from __future__ import annotations

from collections import deque
from math import inf, sqrt

from shield.plugins.policies.shed.criticality import NAMES

SLICE_S = 0.1
SLICES = 5
MINIMUM = 20
MORE = 1.1
"""So many times what was admitted lately may be let in front of the bounds."""
FEWEST = 0.02
"""At least this part counts as admitted: from nothing no part of it would lead back."""
IDLE = 0.05
"""A pressure below which what answers may have nothing to do, so that a free place costs."""


class OfferSlice:
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


class ShareController:
    """Offered and admitted over the last half second, in tenths. Not locked.

    The sums over all tenths are kept up as messages come: asked for each of them, they would cost
    more than the rest of a decision.
    """

    __slots__ = ("_admitted", "_low", "_newest", "_offered", "_peak", "_slices")

    def __init__(self) -> None:
        self._slices: deque[OfferSlice] = deque()
        self._newest = OfferSlice(-inf)
        self._offered = self._admitted = 0
        self._peak, self._low = 0.0, 1.0

    def offer(self, now: float, pressure: float, rank: int) -> None:
        """Count a message of that rank that is offered, at that pressure."""
        if now - self._newest.begun >= SLICE_S:
            self._begin(now)
        newest = self._newest
        newest.offered[rank] += 1
        self._offered += 1
        if pressure > newest.peak:
            newest.peak = pressure
            self._peak = max(self._peak, pressure)
        if pressure < newest.low:
            newest.low = pressure
            self._low = min(self._low, pressure)

    def admit(self, messages: int) -> None:
        """Count what was admitted; below zero, what was not sent after all."""
        self._newest.admitted += messages
        self._admitted += messages

    def excess(self, now: float, above: float) -> float:
        """Return which part of what is offered is too much, by what was admitted lately.

        0 where there was no pressure above that, or too little to judge by.
        """
        if now - self._newest.begun >= SLICE_S:
            self._begin(now)
        if self._offered < MINIMUM or self._peak <= above:
            return 0.0
        return max(0.0, 1.0 - MORE * self._admitted / self._offered)

    def corrected(self, now: float, pressure: float, above: float) -> float:
        """Return which part of what is offered to refuse, so that the pressure comes to its middle.

        That is halfway from `above` to 1. There what is admitted stays the part of what is offered
        that it was lately, a; elsewhere it becomes a * (1 - pressure) / (pressure - above): nothing
        at the full pressure, ever more towards `above`.
        """
        if pressure <= above or pressure >= 1.0:
            return float(pressure > above)
        if now - self._newest.begun >= SLICE_S:
            self._begin(now)
        if self._offered < MINIMUM:
            return (pressure - above) / (1.0 - above)
        lately = max(FEWEST, self._admitted / self._offered)
        return max(0.0, 1.0 - lately * (1.0 - pressure) / (pressure - above))

    def needed_above(self, rank: int, places: float, now: float) -> float:
        """Return how many of so many places those above a rank are about to need.

        With h what was offered of them lately, as a part of what was admitted, by Little's law the
        part h of all places, and one standard deviation on top. 0 where places have been empty:
        to keep one free would cost what it could have done; and where not all were taken anew
        within half a second: how full they are says enough then.
        """
        if now - self._newest.begun >= SLICE_S:
            self._begin(now)
        if self._admitted < places or self._low < IDLE:
            return 0.0
        offered = sum(sum(each.offered[rank + 1 :]) for each in self._slices)
        needed = min(1.0, offered / self._admitted) * places
        return needed + sqrt(needed)

    def _begin(self, now: float) -> None:
        """Begin a tenth of a second, forget those that are too old, and sum up the others."""
        slices = self._slices
        while slices and now - slices[0].begun >= SLICE_S * SLICES:
            slices.popleft()
        self._offered = sum(sum(each.offered) for each in slices)
        self._admitted = sum(each.admitted for each in slices)
        self._peak = max((each.peak for each in slices), default=0.0)
        self._low = min((each.low for each in slices), default=1.0)
        self._newest = OfferSlice(now)
        slices.append(self._newest)
