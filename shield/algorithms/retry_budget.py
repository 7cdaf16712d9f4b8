"""How many messages may be retried: a share of what is sent, so that retries add no load of note.

After the retry budgets of "Site Reliability Engineering" (Beyer and others, 2016, "Handling
Overload") and of finagle. It needs nothing of the messages that are not retried: what was sent is
read off the ledger when somebody wants to retry, so that it is known from the first retry on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

SHARE = 0.1
"""Retries for each message sent, at the most ..."""
WINDOW_S = 10.0
"""... over so long ..."""
AT_LEAST = 3
"""... and so many in any second whatever was sent."""
SAMPLE_EVERY_S = 0.1


class RetryBudget:
    """Grants a retry while there were fewer than 3 in the last second, or 10% of recent sends.

    Thread-safe. What was sent is never overestimated: at times by a tenth of a second's worth
    too little.

    Args:
        sends: tells how many messages have been sent in all, so far.
    """

    def __init__(self, sends: Callable[[], int]) -> None:
        self._sends = sends
        self._lock = threading.Lock()
        self._granted: deque[float] = deque()
        """When, in the last ten seconds."""
        self._samples: deque[tuple[float, int]] = deque()
        """What had been sent in all, at moments of the last ten seconds."""

    def left(self, now: float) -> bool:
        """Tell whether a retry would be granted; `now` is in monotonic seconds."""
        with self._lock:
            return self._has_left(now)

    def spend(self, now: float) -> bool:
        """Take one retry out of the budget; False where none is left."""
        with self._lock:
            if not self._has_left(now):
                return False
            self._granted.append(now)
            return True

    def _has_left(self, now: float) -> bool:
        sent = self._recent_sends(now)
        granted = self._granted
        while granted and granted[0] <= now - WINDOW_S:
            granted.popleft()
        if len(granted) < AT_LEAST or granted[-AT_LEAST] <= now - 1.0:
            return True
        return len(granted) + 1 <= SHARE * sent

    def _recent_sends(self, now: float) -> int:
        samples = self._samples
        if not samples or now - samples[-1][0] >= SAMPLE_EVERY_S:
            samples.append((now, self._sends()))
        while samples[0][0] < now - WINDOW_S:
            samples.popleft()
        return samples[-1][1] - samples[0][1]
