"""A consumer that can do so much and no more, by the clock instead of by its processor."""

from __future__ import annotations

import time
from collections.abc import Callable

NAP_S = 0.001


class Bound:
    """One worker that takes `1 / per_s` for a message.

    It goes by the clock: what the machine keeps from it while messages wait it makes up for, so
    that a noisy neighbour does not lower the capacity. While nothing waits time is lost.
    """

    def __init__(
        self,
        per_s: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._each_s = 1.0 / per_s
        self._now = now
        self._sleep = sleep
        self._free_s = now()

    def idle(self) -> None:
        """Say that nothing waits."""
        self._free_s = max(self._free_s, self._now())

    def work(self) -> float:
        """Do one message's work; return when that was done, which may be a nap ahead."""
        self._free_s += self._each_s
        ahead_s = self._free_s - self._now()
        if ahead_s > NAP_S:
            self._sleep(ahead_s)
        return max(self._free_s, self._now())
