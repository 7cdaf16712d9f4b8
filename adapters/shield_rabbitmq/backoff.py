"""How long to wait before the next attempt: exponential, with full jitter.

Full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS 2015) spreads the clients of a
broker that has just come back evenly; one of them may be unlucky and wait the longest.
"""

from __future__ import annotations

import random

FIRST_S = 0.1
LONGEST_S = 5.0


class Backoff:
    """Counts attempts that failed one after another."""

    def __init__(self) -> None:
        self._failed = 0

    def next_s(self) -> float:
        """Return the seconds to wait now that one more attempt has failed."""
        most_s = min(LONGEST_S, FIRST_S * 2**self._failed)
        self._failed = min(self._failed + 1, 30)
        return random.uniform(0, most_s)

    def reset(self) -> None:
        """Begin anew: an attempt has succeeded."""
        self._failed = 0
