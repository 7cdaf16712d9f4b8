"""Waiting for what is to come true: at once where it is, and long on a machine that is busy."""

from __future__ import annotations

import time
from collections.abc import Callable

GENEROUS_S = 120.0
"""Long beside anything that a test waits for; only one that fails waits so long."""


def eventually(
    is_so: Callable[[], object], within_s: float = GENEROUS_S, every_s: float = 0.02
) -> None:
    """Return when it is so.

    Raises:
        AssertionError: it was not, within that time.
    """
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"it did not come true within {within_s:g} s"
        time.sleep(every_s)
