"""`basic_get` under rules, and a way to wait for what it may give."""

from __future__ import annotations

import time
from typing import Any

from shield import Delivery, Permit
from shield.action import Divert
from shield.receiving import ANEW_S
from shield_rabbitmq.arrival import Arrival
from shield_rabbitmq.consumer import Line, Terms
from shield_rabbitmq.consumer_intake import Intake

EMPTY_FIRST_S, EMPTY_LONGEST_S = 0.01, 0.5
"""How long `wait_for_message` leaves a queue alone that had nothing: twice as long each time."""


class Gets(Line):
    """What `basic_get` takes out of one queue, one message at a time.

    The rules are asked first, so that over the limit nothing is taken at all. What is known of a
    message only once it is there, as its size, its age or a header, may refuse it then: it goes
    back to its place in the queue, and the queue is left alone until that may have changed.
    """

    def __init__(self, intake: Intake, terms: Terms, queue: str) -> None:
        super().__init__(intake, terms, queue, auto_ack=False)
        self.standing = None  # what is refused goes back at once: nothing waits here
        self.ended = True
        self._not_before_s = 0.0
        self._given_back = 0
        """How many can go nowhere, through a fault of their own, and come again."""

    @property
    def most_aside(self) -> int:
        """None: what is taken is handed over, or goes back."""
        return 0

    def _come_back(self, arrival: Arrival, faulty: bool) -> None:
        self._given_back += faulty  # a place that is not there may be there later
        super()._come_back(arrival, faulty)

    def _hold_up(self, arrival: Arrival, step: Divert, now: float) -> float | None:
        """Let the chain go on for one that has come again: it could not go there before."""
        if not self._given_back or not arrival.method.redelivered:
            return super()._hold_up(arrival, step, now)
        self._given_back -= 1
        step.done()
        return self._goes_on(arrival, hopeless=True)

    def may_ask(self) -> bool:
        """Tell whether a message would be admitted, as far as that is known without it."""
        now = self.shield.clock.now()
        like = Delivery(self.queue, 1, self.consumer)
        return now >= self._not_before_s and self.shield.would_receive(like, now)

    def take(self, item: tuple[Any, Any, Any]) -> Permit | None:
        """Return a permit to hand a message over, or None where that was seen to otherwise."""
        self.put(Arrival(*item))
        ready = self.ready()
        if isinstance(ready, tuple):
            return ready[0]
        if ready is not None:
            self.hand_back()
            self.look_again(ready)
        return None

    def look_again(self, wait_s: float) -> None:
        """Leave the queue alone for so long; for a second where a message could not be diverted."""
        self._not_before_s = self.shield.clock.now() + (wait_s or ANEW_S)


def wait_for_message(
    channel: Any, queue: str, auto_ack: bool = False, timeout_s: float | None = None
) -> tuple[Any, Any, Any]:
    """Return the next message of a queue as `basic_get` does, once there is one that may be had.

    Serves the connection meanwhile: heartbeats, timers, other consumers' callbacks.

    Args:
        channel: a `BlockingChannel`; within the rules where it is shielded.
        queue: its name.
        auto_ack: as `basic_get` takes it.
        timeout_s: how long to wait; None for ever. Then it returns `(None, None, None)`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = EMPTY_FIRST_S
    while True:
        got: tuple[Any, Any, Any] = channel.basic_get(queue, auto_ack)
        left_s = pause_s if deadline is None else deadline - time.monotonic()
        if got[0] is not None or left_s <= 0:
            return got
        channel.connection.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, EMPTY_LONGEST_S)
