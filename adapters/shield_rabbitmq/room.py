"""A publisher's own bound, for messages that no rule bounds."""

from __future__ import annotations

import threading

from shield.plugins.bound import Bound


class Room:
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

    def take(self, size: int, at_once: bool) -> bool:
        """Take a place, also above the bound where it is to be at once; False when closed."""
        with self._changed:
            while not (self._closed or at_once or self._bound.exceeded_by(size) is None):
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
            if not self._closed:
                self._bound.take(size)
            return not self._closed

    def release(self, size: int) -> None:
        """Give a place back."""
        with self._changed:
            self._bound.release(size)
            if self._waiting:
                self._changed.notify()

    def close(self) -> None:
        """Turn away all who wait, and who come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
