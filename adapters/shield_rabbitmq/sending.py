"""A message on its way through the write thread, and who waits to hear of it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import Any

from shield_rabbitmq.parcel import Parcel


class Quiet:
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
        """Let go of the lock."""
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


class Confirm(Future[None]):
    """What `publish` returns. It cannot be cancelled: the message may be on the wire already."""

    shield_fate = "sent"

    def __init__(self) -> None:
        self._condition: Any = Quiet()  # what follows is as `Future` does it (Python 3.11 to 3.14)
        self._state = "PENDING"
        self._result = None
        self._exception = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    def cancel(self) -> bool:
        """Return False, as a future that is running does."""
        return False


class Sending(ABC):
    """One parcel on its way; `finish` is called exactly once, mostly on the write thread."""

    __slots__ = ("parcel", "returned", "written_at")

    written_at: float
    """When it was written, in the Shield's monotonic seconds."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        self.returned: Exception | None = None
        """Set where the broker has returned it; the ack that follows means that."""

    @property
    def declares(self) -> bool:
        """Whether its exchange is to be made, with a queue, where it is missing."""
        return False

    @abstractmethod
    def finish(self, error: Exception | None) -> None:
        """Take the answer: None for confirmed, or what went wrong."""
