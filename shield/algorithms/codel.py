"""CoDel: whether a queue stands, by how long its messages wait, and which are too old in it."""

from __future__ import annotations

from math import inf


class Codel:
    """Tells a queue that stands from a burst that goes by. Not locked, asks no clock.

        every `interval_s`: overloaded iff the smallest delay told in it > target_s
        while overloaded: too old iff it waited > longest_s, and the newest are to be served first

    This is Facebook's variant of CoDel, with its parameters (Maurer, "Fail at Scale", ACM Queue
    13(8), 2015; `folly::Codel`, which drops beyond twice the target). CoDel itself (Nichols and
    Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012) drops one at first, then ever more
    often, which TCP's senders understand and others do not. A queue takes up bursts; one that is
    never nearly empty for a whole interval takes up none any more and only makes all of it late.

    Delays are told of what stands first, the oldest, whoever is served: so that a queue which
    serves the newest first does not pass for an empty one. When nothing is told for a whole
    interval, nothing has waited, and it is not overloaded.

    Good at: sheds as much as is too much, whatever the rate, without being told that. Bad at: a
    queue whose consumer takes many at once and seldom; there the target has to be longer than the
    pause in between.

    Args:
        target_s: a delay that is good enough, in seconds.
        interval_s: for how long all delays must be above it, in seconds.
        longest_s: what waited longer is too old while it is overloaded; twice the target if None.
    """

    __slots__ = ("_interval_s", "_longest_s", "_overloaded", "_smallest_s", "_target_s", "_until")

    def __init__(self, target_s: float, interval_s: float, longest_s: float | None = None) -> None:
        self._target_s = target_s
        self._interval_s = interval_s
        self._longest_s = 2.0 * target_s if longest_s is None else longest_s
        self._until = -inf
        """When the present interval is over."""
        self._smallest_s = inf
        """The smallest delay of it."""
        self._overloaded = False

    @property
    def look_every_s(self) -> float:
        """How often to tell, in seconds, while nothing leaves."""
        return self._interval_s / 10

    def tell(self, delay_s: float, now: float) -> None:
        """Hear how long what stands first has waited: as one leaves, or while none can."""
        if now < self._until:
            self._smallest_s = min(self._smallest_s, delay_s)
            return
        was_told = now < self._until + self._interval_s
        self._overloaded = was_told and self._smallest_s > self._target_s
        self._smallest_s = delay_s
        self._until = now + self._interval_s

    def stood(self, delay_s: float, now: float) -> None:
        """Hear the same from who serves the oldest first, and may tell of it seldom.

        What waited for so long had something before it, or was the first itself: it tells of the
        interval before this moment, too, where nothing else has.
        """
        if now >= self._until + self._interval_s:
            self.tell(max(0.0, delay_s - self._interval_s), now - self._interval_s)
        self.tell(delay_s, now)

    def is_overloaded(self, now: float) -> bool:
        """Tell whether the queue stands: then its newest are to be served first."""
        return self._overloaded and now < self._until + self._interval_s

    def is_too_old(self, waited_s: float, now: float) -> bool:
        """Tell whether what has waited so long is of no use any more."""
        return waited_s > self._longest_s and self.is_overloaded(now)

    def pressure(self, now: float) -> float:
        """Return how near to being too old is what leaves first in this interval, 0 to 1."""
        if now >= self._until or self._smallest_s == inf:
            return 0.0
        return min(1.0, self._smallest_s / self._longest_s)
