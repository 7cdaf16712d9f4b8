"""A lock that is held for microseconds, and wanted by many threads at once."""

from __future__ import annotations

import threading
import time

YIELDS = 200
"""How often a thread gives way before it sleeps on the lock after all."""


class BriefLock:
    """Who finds it taken gives way to other threads and tries again, instead of sleeping on it.

    A thread that sleeps on a `threading.Lock` is given it while somebody else has the interpreter,
    and holds it until it gets that, five milliseconds later: by then all others sleep on the lock
    as well, and from there on each of its owners costs two switches between threads (a lock
    convoy; Blasgen et al., "The Convoy Phenomenon", 1979). Eight threads that send through one
    Shield so take half the time.

    Not for what does I/O, or calls anybody's code, under it. Not first come, first served.
    """

    __slots__ = ("attempt", "release")

    def __init__(self) -> None:
        lock = threading.Lock()
        self.attempt = lock.acquire
        """`attempt(False)` takes it if it is free; for who calls `insist` where it is not."""
        self.release = lock.release
        """Let go of it."""

    def insist(self) -> None:
        """Take it as soon as it is free."""
        for _ in range(YIELDS):
            time.sleep(0)
            if self.attempt(False):
                return
        self.attempt()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it as `threading.Lock` does: what a `threading.Condition` needs."""
        if self.attempt(False):
            return True
        if not blocking or timeout >= 0:
            return self.attempt(blocking, timeout)
        self.insist()
        return True

    def __enter__(self) -> None:
        if not self.attempt(False):
            self.insist()

    def __exit__(self, *exception: object) -> None:
        self.release()
