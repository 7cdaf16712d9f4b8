"""Time as Shield sees it, so that tests can move it by hand."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Tells monotonic seconds and waits; `shield.testing.ManualClock` is the one for tests."""

    def now(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Block until `event` is set or the time is over; return whether it was set."""
        ...


class SystemClock:
    """`time.monotonic`, and real waiting."""

    now = staticmethod(time.monotonic)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Block until `event` is set or `timeout_s` is over."""
        return event.wait(min(timeout_s, threading.TIMEOUT_MAX))


SYSTEM_CLOCK = SystemClock()
"""The one that all Shields of a program share, but for tests."""
