"""Brings messages back: from where they were set aside, through the rules, to where they belong."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from math import inf

from shield.accounts import End
from shield.algorithms.backoff import Backoff
from shield.chain.runner import wait_behind
from shield.clock import Clock, SystemClock
from shield.envelope import Envelope
from shield.errors import ExpiredError, Reject
from shield.message import Message
from shield.plugin_results import taken_in
from shield.transport import Source, Taken, Transport, once, outcome_of
from shield.verdict import Permit, Verdict

KeyOf = Callable[[Envelope], Hashable]
WINDOW = 1000
LOOK_EVERY_S = 0.2
COUNTED_WINDOW = 100
IN_HAND_S = 0.1
"""Of a source that counts deliveries: how many are taken at once at the most, and how long those
may wait for their pace."""


@dataclass(slots=True)
class Watermarks:
    """What a redriver has done so far."""

    sent: int = 0
    failed: int = 0
    expired: int = 0
    """How many were not sent, since their time to live was over."""
    last_error: Exception | None = None


def key_on_kafka(envelope: Envelope) -> Hashable:
    """Return what keeps messages of one key in order; None where there is no key."""
    return None if envelope.key is None else (envelope.destination, envelope.key)


def key_on_any(envelope: Envelope) -> Hashable:
    """Return Kafka's key, or what RabbitMQ routes by; None for no order."""
    if envelope.routing_key is not None:
        return envelope.destination
    return key_on_kafka(envelope)


class InFlightSend:
    """How many messages are taken at once.

    As many as there is room for, where it costs nothing to give some back. Of a source that counts
    deliveries as many as are about to be sent: one, after each that the rules let wait; twice as
    many each time that none had to; and no more than the pace allows in a moment.
    """

    def __init__(self, window: int, *, counted: bool) -> None:
        self._window = window
        self._counted = counted
        self._let_go = 1 if counted else window
        self._in_pace = window
        self._waited = False

    @property
    def most(self) -> int:
        """How many may be in hand and not on their way."""
        return min(self._let_go, self._in_pace)

    def set_pace(self, rate: float | None) -> None:
        """Hear how many a second are sent at the most; None for any number."""
        if self._counted and rate:
            self._in_pace = max(1, min(self._window, int(rate * IN_HAND_S)))

    def grow(self) -> None:
        """Note that all that was taken at once is under way."""
        if self._counted and not self._waited:
            self._let_go = min(self._window, COUNTED_WINDOW, self._let_go * 2)
        self._waited = False

    def shrink(self) -> None:
        """Note that a message waits."""
        if self._counted:
            self._let_go = 1
            self._waited = True


class Redriver:
    """Takes messages from a source and sends each, once the rules admit it, through a transport.

    A message waits behind all that producers send meanwhile: it takes what they leave. Of one
    key there is one message on its way at a time, so that each key's order holds also where a
    send fails. A message leaves its source when the broker has confirmed it and not before, so
    that it arrives at least once. After failures it pauses, with full-jitter backoff.

    Answers are appended to a deque by the transport's thread, which settles their permits, and
    taken by the thread that runs this. All other state is confined to that thread: no lock.

    Args:
        source: where they are taken from.
        transport: what sends them.
        offer: has a message decided on: `Shield.admit`, or a bound `Shield.readmit`.
        failed_as: where the ledger counts a message whose send failed.
        window: how many may be sent and not yet answered.
        rate: messages a second at the most; None for as many as the rules admit.
        key_of: whose messages go one after another; None for those that need no order.
        gives_up: asked of each that failed; it is left where it is and not tried again in this
            run where the answer is True. Who gives up a message keeps back those of its key.
        yields: asked while a message waits to be admitted; where the answer is True, it goes
            back to its source.
        expired: told of each whose time to live was over; that is not sent, and forgotten.
    """

    def __init__(
        self,
        source: Source,
        transport: Transport,
        offer: Callable[[Message], Verdict],
        *,
        failed_as: End = End.FAILED,
        window: int = WINDOW,
        rate: float | None = None,
        key_of: KeyOf = key_on_kafka,
        gives_up: Callable[[Taken, Exception], bool] = lambda _taken, _error: False,
        yields: Callable[[], bool] = lambda: False,
        expired: Callable[[Taken], None] = lambda _taken: None,
        clock: Clock | None = None,
    ) -> None:
        self._source = source
        self._transport = transport
        self._offer = offer
        self._failed_as = failed_as
        self._window = window
        self._key_of = key_of
        self._gives_up = gives_up
        self._yields = yields
        self._expired = expired
        self._clock = clock or SystemClock()
        self._next_s = 0.0
        self._pause_until_s = 0.0
        self._backoff = Backoff()
        self._answers: deque[tuple[Taken, Exception | None]] = deque()
        self._woken = threading.Event()
        self._stopping = False
        self._unanswered = 0
        self._busy: dict[Hashable, deque[Taken]] = {}
        """Keys with a message on its way, and what waits behind each."""
        self._failed_keys: set[Hashable] = set()
        """Keys of which a message has failed since the source was last asked for more."""
        self._waiting = 0
        self._ready: deque[Taken] = deque()
        self._in_hand = InFlightSend(window, counted=source.counts_deliveries)
        self.progress = Watermarks()
        self.set_rate(rate)

    # --- from any thread ------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more; `run` returns when what is under way is answered."""
        self._stopping = True
        self._woken.set()

    def wake(self) -> None:
        """Look at once whether there is something to take."""
        self._woken.set()

    def set_rate(self, rate: float | None) -> None:
        """Go so many messages a second at the most from now on; None for no such limit."""
        self._period_s = 1 / rate if rate else 0.0
        self._in_hand.set_pace(rate)

    @property
    def pause_s(self) -> float:
        """Seconds until it goes on after a failure; 0 where it does not pause."""
        return max(0.0, self._pause_until_s - self._clock.now())

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, or waits behind what is."""
        return not (self._unanswered or self._waiting)

    @property
    def unanswered(self) -> int:
        """How many are sent and not yet answered."""
        return self._unanswered

    # --- the thread that runs it ----------------------------------------------------------------

    def run(self, ended: Callable[[], bool] = lambda: False, settle_within_s: float = inf) -> None:
        """Bring messages back until stopped, or the source gives none and `ended` says so.

        Returns when all that is sent is answered, or that takes too long.
        """
        try:
            while not self._stopping:
                if not self.step() and ended() and self.idle:
                    break
        finally:
            self.settle(settle_within_s)
            self._give_back()

    def _give_back(self) -> None:
        """Give back to the source what was its key's next when it was stopped."""
        while self._ready:
            self._let_back(self._ready.popleft())

    def settle(self, timeout_s: float = inf) -> None:
        """Return when all that is sent is answered, or the time is over."""
        deadline = self._clock.now() + timeout_s
        self._pick_up()
        while self._unanswered and (left_s := deadline - self._clock.now()) > 0:
            self._rest(min(LOOK_EVERY_S, left_s))
            self._pick_up()

    def step(self) -> bool:
        """Take some and send them; False where there was nothing to be done for a moment."""
        self._pick_up()
        pause_s = self.pause_s
        if pause_s > 0:
            self._rest(pause_s)
            return True
        if self._ready:
            for _ in range(len(self._ready)):
                self._waiting -= 1
                self._send(self._ready.popleft())
            return True
        room = min(self._window - self._unanswered, self._in_hand.most) - self._waiting
        if room <= 0:
            self._rest(LOOK_EVERY_S)
            return True
        self._failed_keys.clear()
        under_way = bool(self._unanswered)
        batch = taken_in(self._source.take(room, 0.0 if under_way else LOOK_EVERY_S), room)
        if under_way and not batch:
            self._rest(LOOK_EVERY_S)  # an answer ends it: another of its key may go then
        for taken in batch:
            self._send_in_turn(taken)
        if batch:
            self._in_hand.grow()
        return bool(batch)

    def pick_up(self) -> None:
        """Handle the answers that have come, and take nothing."""
        self._pick_up()

    def _rest(self, seconds: float) -> None:
        self._clock.wait(self._woken, seconds)
        self._woken.clear()

    def _send_in_turn(self, taken: Taken) -> None:
        """Send it, or let it wait for, or go back with, another of its key."""
        key = self._key_of(taken.envelope)
        if key is None:
            self._send(taken)
            return
        behind = self._busy.get(key)
        if behind is not None:
            behind.append(taken)
            self._waiting += 1
        elif key in self._failed_keys:
            self._source.failed(taken)
        else:
            self._busy[key] = deque()
            self._send(taken)

    def _send(self, taken: Taken) -> None:
        """Send it once it is admitted; it goes back to its source where that is not to be."""
        try:
            permit = self._admitted(taken.envelope)
        except Reject as reject:
            self._has_failed(taken, reject)
            return
        if permit is None:
            self._let_back(taken)
            return
        self._unanswered += 1
        answered = once(partial(self._answered, taken, permit))
        try:
            self._transport.send(taken.envelope, answered)
        except Exception as error:  # against its promise; the message is not to hang for that
            answered(error)

    def _admitted(self, envelope: Envelope) -> Permit | None:
        """Wait for the pace and for the rules; None once stopped, or where it yields.

        Raises:
            Reject: a plugin refused it; that is counted.
        """
        if self._period_s:
            self._keep_pace()
        if self._lets_go():
            return None
        message = envelope.message()
        message.aside = True
        message.signals = self._transport.signals
        verdict = self._offer(message)
        if isinstance(verdict, Permit):
            return verdict
        self._in_hand.shrink()
        permit = wait_behind(verdict, self._woken, self._lets_go, LOOK_EVERY_S)
        if permit is None and verdict.kept_as is None:
            verdict.end(self._failed_as)
        return permit

    def _lets_go(self) -> bool:
        if self._answers:
            self._pick_up()
        return self._stopping or self._yields()

    def _keep_pace(self) -> None:
        now = self._clock.now()
        self._next_s = max(self._next_s, now) + self._period_s
        while not self._lets_go() and (left_s := self._next_s - self._period_s - now) > 0:
            self._rest(left_s)
            now = self._clock.now()

    # --- answers --------------------------------------------------------------------------------

    def _answered(self, taken: Taken, permit: Permit, error: Exception | None) -> None:
        """Take an answer, on the transport's thread: the permit makes room for others at once."""
        if error is None:
            permit.delivered()
        elif isinstance(error, ExpiredError):
            permit.expired()
        else:
            permit.flow.engine.settle(permit, outcome_of(self._transport, error), self._failed_as)
        self._answers.append((taken, error))
        if not self._woken.is_set():  # to set it anew costs ten times as much
            self._woken.set()

    def _pick_up(self) -> None:
        """Handle all that was answered meanwhile."""
        answers = self._answers
        while answers:
            taken, error = answers.popleft()
            self._unanswered -= 1
            if error is None:
                self._has_arrived(taken)
            elif isinstance(error, ExpiredError):
                self._has_expired(taken)
            else:
                self._has_failed(taken, error)

    def _has_arrived(self, taken: Taken) -> None:
        self._source.forget(taken)
        self.progress.sent += 1
        self._backoff.reset()
        self._next_of_its_key(taken)

    def _has_expired(self, taken: Taken) -> None:
        """Let a message go that comes too late: it is not sent, and need not come again."""
        self._expired(taken)
        self._source.forget(taken)
        self.progress.expired += 1
        self._next_of_its_key(taken)

    def _next_of_its_key(self, taken: Taken) -> None:
        key = self._key_of(taken.envelope)
        if key is None:
            return
        behind = self._busy.pop(key)
        if behind:
            self._ready.append(behind.popleft())
            self._busy[key] = behind

    def _has_failed(self, taken: Taken, error: Exception) -> None:
        """Let a message come again after a pause, or leave it for good."""
        self.progress.failed += 1
        self.progress.last_error = error
        if self._gives_up(taken, error):
            self._source.give_up(taken)
        else:
            self._source.failed(taken)
        self._pause_until_s = self._clock.now() + self._backoff.next_s()
        self._let_back_behind(taken)

    def _let_back(self, taken: Taken) -> None:
        """Let a message back that is not to be sent now, and those behind it."""
        self._source.failed(taken)
        self._let_back_behind(taken)

    def _let_back_behind(self, taken: Taken) -> None:
        key = self._key_of(taken.envelope)
        if key is None:
            return
        self._failed_keys.add(key)
        behind = self._busy.pop(key)
        self._waiting -= len(behind)
        for later in behind:
            self._source.failed(later)
