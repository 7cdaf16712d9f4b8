"""How much waits at one place now, from what was read once a second and what was sent since."""

from __future__ import annotations

from collections import deque

from shield import Watch

SAMPLES = 6
"""Of so many reads, five seconds, the slope is taken: consumers commit in steps."""


class Gauge:
    """Carries the last reading on: its slope holds until the next, and own messages are counted.

    The change between readings is what this rule has sent, which is known, and the rest: what
    others send less what is consumed. The rest is taken to go on as in the last seconds.

    Args:
        watch: what the broker says.
        jump: by how much the readings may differ from what was expected; what differs by more,
            as a topic made anew or offsets that were set back, is no slope.
    """

    def __init__(self, watch: Watch, jump: float) -> None:
        self.watch = watch
        self.engaged = False
        self.jumps = 0
        """How often the readings have jumped."""
        self._jump = jump
        self._sent = 0
        self._readings: deque[tuple[float, int, int]] = deque(maxlen=SAMPLES)

    def send(self, messages: int) -> None:
        """Count own messages, or with a number below zero, those that were not sent after all."""
        self._sent += messages

    def age_s(self, now: float) -> float | None:
        """Return how old the last reading is; None where there was none."""
        sample = self.watch.sample
        return None if sample is None else max(0.0, now - sample[0])

    def level(self, now: float) -> float | None:
        """Return how much waits by estimate; None where nothing was ever read."""
        self._look()
        return self._expected(now)

    def _look(self) -> None:
        """Take a new reading in."""
        sample = self.watch.sample
        if sample is None or (self._readings and self._readings[-1][0] == sample[0]):
            return
        at, value = sample
        expected = self._expected(at)
        if expected is not None and abs(value - expected) > self._jump:
            self.jumps += 1
            self._readings.clear()
        self._readings.append((at, value, self._sent))

    def _expected(self, now: float) -> float | None:
        """Return what the readings so far, and what was sent since, make expected."""
        if not self._readings:
            return None
        at, value, sent = self._readings[-1]
        rest = self._rest_per_s() * max(0.0, now - at)
        return max(0.0, value + (self._sent - sent) + rest)

    def _rest_per_s(self) -> float:
        """Return by how much it changes a second, but for what this rule sends."""
        (first_at, first, first_sent), (last_at, last, last_sent) = (
            self._readings[0],
            self._readings[-1],
        )
        if last_at <= first_at:
            return 0.0
        return ((last - first) - (last_sent - first_sent)) / (last_at - first_at)
