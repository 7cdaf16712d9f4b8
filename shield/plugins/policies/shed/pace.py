"""How long a message sent now would take to be answered, by those before it."""

from __future__ import annotations

from collections import deque

SLICE_S = 0.1
SLICES = 10


class Pace:
    """Counts what is unanswered, and the answers of the last second in tenths. Not locked."""

    __slots__ = ("_slices", "unanswered")

    def __init__(self) -> None:
        self.unanswered = 0
        self._slices: deque[list[float]] = deque(maxlen=SLICES)

    def answered(self, now: float) -> None:
        """Count an answer; who brings it counts `unanswered`."""
        if not self._slices or now - self._slices[-1][0] >= SLICE_S:
            self._slices.append([now, 0])
        self._slices[-1][1] += 1

    def wait_s(self, now: float) -> float:
        """Return how long it takes to answer what is unanswered, at the best of those tenths.

        The best one, because an idle second says little about what is possible. 0 where nothing
        was answered in the last second: what is not known sheds nothing.
        """
        recent = [count for begun, count in self._slices if now - begun < SLICE_S * SLICES]
        return self.unanswered * SLICE_S / max(recent) if recent else 0.0
