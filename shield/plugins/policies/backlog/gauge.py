"""How much waits at one place now, from what was read now and then and what was sent since."""

from __future__ import annotations

from dataclasses import dataclass

from shield import Watch

TRUST = 0.5
"""By which part of what a reading differs from what was expected the level is corrected."""
SILENCE_S = 5.0
"""What is read after so long is believed, whatever was expected."""
GAIN = 0.15
"""By which part of what a reading differs from what was expected the slope is corrected."""
GAIN_OF_LITTLE = 0.5
"""The same where there is less left than was expected, and little: it may have been gone long."""
MIN_S = 0.001
LITTLE = 0.25
"""Below this part of the limit a backlog says nothing of how fast consumers could be, and nobody
has to make up for it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was there at a moment, on its way there too, and what had been sent by then."""

    at_s: float
    messages: float
    sent: int


class BacklogGauge:
    """Carries the last reading on: its slope holds until the next, and own messages are counted.

    The change between readings is what this rule has sent, which is known, and the slope: what
    others send less what is consumed. Each reading corrects level and slope by parts of what
    differs from the expected (a g-h filter; Brookner, "Tracking and Kalman Filtering Made Easy",
    1998): commits and deliveries come in steps, and processes that all made up at once for what is
    missing would together make up for it several times. What was sent and not answered yet is on
    its way, and not in the reading.

    Consumers that find little are as fast as messages come: that says nothing of how fast they
    could be, and the slope stays what it was while more was there.

    Args:
        watch: what the broker says.
        limit: how much may wait. What differs from what was expected by more than this and what
            this rule has sent at its fastest in such a time, as a topic made anew or offsets that
            were set back, has jumped: it is believed, and says nothing of the slope.
    """

    def __init__(self, watch: Watch, limit: float) -> None:
        self.watch = watch
        self.engaged = False
        self.jumps = 0
        """How often the readings have jumped."""
        self.slope_per_s = 0.0
        """By how much it changes a second, but for what this rule sends."""
        self._limit = limit
        self._sent = self._answered = 0
        self._is_first = True
        self._fastest_per_s = 0.0
        self._last: Estimate | None = None

    def send(self, messages: int) -> None:
        """Count own messages, or with a number below zero, those that were not sent after all."""
        self._sent += messages

    def answer(self) -> None:
        """Count one of them as arrived, or as lost."""
        self._answered += 1

    def age_s(self, now: float) -> float | None:
        """Return how old the last reading is; None where there was none."""
        sample = self.watch.sample
        return None if sample is None else max(0.0, now - sample[0])

    def level(self, now: float) -> float | None:
        """Return how much waits by estimate; None where nothing was ever read."""
        sample, last = self.watch.sample, self._last
        if sample is not None and (last is None or last.at_s != sample[0]):
            at_s, value = sample
            found = value + max(0.0, self._sent - self._answered)
            level = found if last is None else self._corrected(last, at_s, found)
            self._last = last = Estimate(at_s, level, self._sent)
        return None if last is None else self._expected(last, now)

    def _expected(self, last: Estimate, now: float) -> float:
        """Return what the last reading, and what was sent since, make expected."""
        since = self._sent - last.sent + self.slope_per_s * max(0.0, now - last.at_s)
        return max(0.0, last.messages + since)

    def _corrected(self, last: Estimate, at_s: float, found: float) -> float:
        """Return the level that a reading makes likely; learn the slope from it."""
        elapsed_s = max(MIN_S, at_s - last.at_s)
        expected = self._expected(last, at_s)
        differs = found - expected
        self._fastest_per_s = max(self._fastest_per_s, (self._sent - last.sent) / elapsed_s)
        if abs(differs) > self._limit + self._fastest_per_s * elapsed_s:
            self.jumps += 1
            return found
        if max(found, expected) < LITTLE * self._limit:
            return found
        self.slope_per_s += self._gain(found) * differs / elapsed_s
        self._is_first = False
        return found if elapsed_s >= SILENCE_S else expected + TRUST * differs

    def _gain(self, found: float) -> float:
        """Return by which part the slope is corrected; all of it while nothing is known."""
        if self._is_first:
            return 1.0
        return GAIN_OF_LITTLE if found < LITTLE * self._limit else GAIN
