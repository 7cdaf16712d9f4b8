"""A publisher's own bound, for messages that no rule bounds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from shield.algorithms.bound import Bound


class PublisherLimit:
    """So many messages and bytes may be unanswered; who brings more is blocked until there is room.

    Args:
        messages: how many.
        size: how many bytes of them.
    """

    def __init__(self, messages: int, size: int) -> None:
        self._bound = Bound(messages, size)
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0
        self._closed = False
        self._bells: deque[Callable[[], None]] = deque()
        """Who waits on event loops, and is to be called."""

    def take(self, size: int, at_once: bool) -> bool:
        """Take a place, also above the bound where it is to be at once; False when closed."""
        with self._changed:
            while not (self._closed or at_once or self._bound.exceeded_by(size) is None):
                self._waiting += 1
                try:
                    self._changed.wait()
                finally:
                    self._waiting -= 1
            if not self._closed:
                self._bound.take(size)
            return not self._closed

    def take_or_ring(self, size: int, ring: Callable[[], None]) -> bool | None:
        """Take a place where there is one; else None, and `ring` is called when there may be."""
        with self._changed:
            if self._closed:
                return False
            if self._bound.exceeded_by(size) is not None:
                self._bells.append(ring)
                return None
            self._bound.take(size)
            return True

    def forget(self, ring: Callable[[], None]) -> None:
        """Note that nobody waits for that any more; a call that it has had goes to the next."""
        with self._changed:
            if ring in self._bells:
                self._bells.remove(ring)
            elif self._bells:
                self._bells.popleft()()

    def release(self, size: int) -> None:
        """Give a place back."""
        with self._changed:
            self._bound.release(size)
            if self._waiting:
                self._changed.notify()
            if self._bells:
                self._bells.popleft()()

    def close(self) -> None:
        """Turn away all who wait, and who come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._bells:
                self._bells.popleft()()
