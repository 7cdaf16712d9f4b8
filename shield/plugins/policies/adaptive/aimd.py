"""Additive increase, multiplicative decrease, made stable."""

from __future__ import annotations

from shield.plugins.policies.adaptive.limit import Limit, Sample

BACK_OFF = 0.9
GROWTH = 0.1
"""Per answer: a limit's worth of good answers adds the tenth that late ones take."""


class StabilizingAimd(Limit):
    """Grows by a tenth a round trip where it is used and answers come in time; else falls by one.

        on a sample with overload or latency > expected, sent under the present limit,
        and with in flight <= limit:                        limit *= 0.9
        else, with in flight >= half of the limit:          limit += 0.1
        bounds [min, max]

    After Chiu and Jain ("Analysis of the Increase and Decrease Algorithms for Congestion
    Avoidance", 1989). What makes it stable is that a decrease is given the time to show: while
    more is in flight than the limit allows, and until all that was in flight at the last decrease
    is answered, nothing lowers it again (as TCP NewReno's recovery, RFC 6582). So a burst of late
    answers, which a broker may give for hundreds of messages at once, costs a tenth and not
    everything; and for balance a good answer adds a tenth of what it does elsewhere, where each
    late one counts.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high)
        self._old_answers = 0
        """How many answers are still to come for what was sent under a higher limit."""

    def sample(self, sample: Sample) -> None:
        """Learn from one answer."""
        sent_before = self._old_answers > 0
        if sent_before:
            self._old_answers -= 1
        if not sample.is_slow:
            if sample.in_flight >= self.limit / 2:
                self.move_to(self.limit + GROWTH)
        elif not sent_before and sample.in_flight <= self.limit:
            self._old_answers = sample.in_flight - 1
            self.move_to(self.limit * BACK_OFF)
