"""The gradient between what answers take now and what they have taken for long."""

from __future__ import annotations

from shield.plugins.policies.adaptive.limit import Limit, Sample

TOLERANCE = 1.5
SMOOTHING = 0.2
HEADROOM = 4.0
EVERY_S = 0.1
LONG_WINDOW = 600
WARM_UP = 10
TOO_LONG = 2.0
DRIFT = 0.95


class Gradient2(Limit):
    """Moves the limit by the ratio of long-term to present latency, and lets it grow a little.

        g = clamp(1.5 * long / short, 0.5, 1)
        limit = 0.8 * limit + 0.2 * (g * limit + 4), bounds [min, max]

    Netflix's Gradient2 (concurrency-limits, 2018). `short` is the mean of a tenth of a second,
    `long` an exponential average over 600 of those, a minute; where it is more than twice the
    present it falls by 5% each time, so that a past overload is soon forgotten. A tenth of a
    second with an overload counts as g = 0.5. Where less than half of the limit is in use the
    latency says nothing about it, and it stays. Good at: a capacity that drifts. Bad at: a broker
    that is slow for minutes, whose latency becomes the normal one.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high)
        self._long_s = 0.0
        self._seen = 0
        self._total_s = 0.0
        self._count = 0
        self._overloaded = False
        self._most_in_flight = 0
        self._until = float("-inf")

    def sample(self, sample: Sample) -> None:
        """Learn from one answer; the limit moves ten times a second at the most."""
        if sample.latency_s is not None:
            self._total_s += sample.latency_s
            self._count += 1
        self._overloaded = self._overloaded or sample.overloaded
        self._most_in_flight = max(self._most_in_flight, sample.in_flight)
        if sample.now < self._until:
            return
        self._until = sample.now + EVERY_S
        self._update()
        self._total_s, self._count = 0.0, 0
        self._overloaded, self._most_in_flight = False, 0

    def _update(self) -> None:
        gradient = 0.5 if self._overloaded else 1.0
        if self._count:
            short_s = self._total_s / self._count
            self._remember(short_s)
            if short_s > 0.0:
                gradient = min(gradient, max(0.5, TOLERANCE * self._long_s / short_s))
        if self._most_in_flight >= self.limit / 2 or self._overloaded:
            aim = gradient * self.limit + HEADROOM
            self.move_to((1.0 - SMOOTHING) * self.limit + SMOOTHING * aim)

    def _remember(self, short_s: float) -> None:
        """Take a mean into the long average: plain at first, then exponential."""
        self._seen += 1
        if self._seen <= WARM_UP:
            self._long_s += (short_s - self._long_s) / self._seen
            return
        self._long_s += (short_s - self._long_s) * 2.0 / (LONG_WINDOW + 1)
        if self._long_s > TOO_LONG * short_s:
            self._long_s *= DRIFT
