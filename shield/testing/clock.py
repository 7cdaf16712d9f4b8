"""Time that tests move by hand."""

from __future__ import annotations

import threading
from math import inf, nextafter

REAL_TIME_LIMIT_S = 10.0
"""How long a test waits for other threads before it gives up."""


class ManualClock:
    """Time that a test moves. Whoever waits moves it, too: to the end of the wait, at once.

    Args:
        start: the first moment, in seconds.
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self._now = start
        self._changed = threading.Condition()
        self.waits = 0
        """How often somebody has begun to wait."""

    def now(self) -> float:
        """Return the moment the test has moved to."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let so much time pass; a little more where floats could not tell it from none."""
        with self._changed:
            self._now = max(self._now + seconds, nextafter(self._now, inf))
            self._changed.notify_all()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Return at once: with the event set, or with the time over."""
        with self._changed:
            self.waits += 1
        if not event.is_set():
            self.advance(timeout_s)
        return event.is_set()


class HeldClock(ManualClock):
    """Time that only the test moves: whoever waits is blocked until its event or its moment.

    For tests of several threads: `until_waiting(3)` returns when three of them are blocked.
    """

    LOOK_S = 0.001

    def __init__(self, start: float = 1_000.0) -> None:
        super().__init__(start)
        self._waiting = 0

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Block until the event is set or the test has let `timeout_s` pass."""
        until = self._now + timeout_s
        with self._changed:
            self.waits += 1
            self._waiting += 1
            self._changed.notify_all()
            while not event.is_set() and self._now < until:
                self._changed.wait(self.LOOK_S)
            self._waiting -= 1
            self._changed.notify_all()
        return event.is_set()

    def until_waiting(self, threads: int) -> None:
        """Block, in real time, until so many threads wait; AssertionError where they do not."""
        with self._changed:
            there = self._changed.wait_for(lambda: self._waiting == threads, REAL_TIME_LIMIT_S)
            assert there, f"{self._waiting} threads wait, not {threads}"
