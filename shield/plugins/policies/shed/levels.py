"""The levels of what was offered last, in order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import inf

KEPT = 1000


class Levels:
    """The last thousand levels; a quantile costs an index, a new level two binary searches."""

    __slots__ = ("_arrived", "_sorted")

    def __init__(self) -> None:
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, level: float) -> None:
        """Take one more, and forget the oldest where there are enough."""
        if len(self._arrived) >= KEPT:
            oldest = self._arrived.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._arrived.append(level)
        insort(self._sorted, level)

    def quantile(self, share: float) -> float:
        """Return the level below which that share of them is; `inf` for all of them."""
        index = int(share * len(self._sorted))
        return self._sorted[index] if index < len(self._sorted) else inf
