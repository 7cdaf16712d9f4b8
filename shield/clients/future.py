"""A future for messages: most are done before anybody asks, and few are ever waited for."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class LazyCondition:
    """A condition that is made when somebody waits: most futures are done before, or never asked.

    `threading.Condition` is seven objects, and half of what it costs to publish a message.
    """

    __slots__ = ("_lock", "_made")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._made: threading.Condition | None = None

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def acquire(self) -> None:
        """Take the lock, as `concurrent.futures.wait` does."""
        self._lock.acquire()

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for `notify_all`; the lock is held before and after."""
        if self._made is None:
            self._made = threading.Condition(self._lock)
        return self._made.wait(timeout)

    def notify_all(self) -> None:
        """Wake all who wait."""
        if self._made is not None:
            self._made.notify_all()


class LazyFuture(Future[Result]):
    """A `concurrent.futures.Future` whose condition costs nothing until somebody waits."""

    shield_fate = "sent"
    """What `shield.fate` says of it."""

    def __init__(self) -> None:
        # As `Future` does it (Python 3.11 to 3.14), but for the condition.
        self._condition: Any = LazyCondition()
        self._state = "PENDING"
        self._result = None
        self._exception = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
