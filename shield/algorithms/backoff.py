"""How long to wait before the next attempt: exponential, with full jitter.

Full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS 2015) spreads the clients of a
broker that has just come back evenly; one of them may be unlucky and wait the longest.
"""

from __future__ import annotations

import random

MOST_DOUBLINGS = 30


class Backoff:
    """Counts attempts that failed one after another.

    Args:
        first_s: the longest wait after the first failure, in seconds; it doubles with each.
        longest_s: what it grows to.
    """

    def __init__(self, first_s: float = 0.1, longest_s: float = 5.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failed = 0

    def next_s(self) -> float:
        """Return the seconds to wait now that one more attempt has failed."""
        most_s = min(self._longest_s, self._first_s * 2**self._failed)
        self._failed = min(self._failed + 1, MOST_DOUBLINGS)
        return random.uniform(0, most_s)

    def reset(self) -> None:
        """Begin anew: an attempt has succeeded."""
        self._failed = 0
