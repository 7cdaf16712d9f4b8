"""A lock that is held for microseconds, and wanted by many threads at once."""

from __future__ import annotations

import time
from _thread import RLock
from contextlib import suppress

YIELDS = 200
"""How often a thread gives way before it sleeps on the lock after all."""


class SpinLock(RLock):  # type: ignore[misc] # final to typeshed alone
    """Who finds it taken gives way to other threads and tries again, instead of sleeping on it.

    A thread that sleeps on a lock is given it while somebody else has the interpreter,
    and holds it until it gets that, five milliseconds later: by then all others sleep on the lock
    as well, and from there on each of its owners costs two switches between threads (a lock
    convoy; Blasgen et al., "The Convoy Phenomenon", 1979). Eight threads that send through one
    Shield so take half the time.

    An exception from outside (Ctrl-C, a worker's time limit) can strike after any call. In a
    `with` it leaves nothing taken: its way out is C code that no exception comes before. Who takes
    it by hand, because a `with` costs more, calls `acquire(False)`, else `insist`, inside a `try`,
    and on any exception `release`, whose RuntimeError says that it was not taken: it knows its
    owner. That thread may take it again, as in a signal's handler that publishes.

    Not for what does I/O, or calls anybody's code, under it. Not first come, first served.
    """

    def insist(self) -> None:
        """Take it as soon as it is free."""
        for _ in range(YIELDS):
            time.sleep(0)
            if self.acquire(False):
                return
        self.acquire()

    def __enter__(self) -> bool:  # type: ignore[override] # what `with` calls
        try:
            if not self.acquire(False):
                self.insist()
        except BaseException:
            with suppress(RuntimeError):  # it struck before
                self.release()
            raise
        return True
