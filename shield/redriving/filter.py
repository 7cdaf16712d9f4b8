"""Which of a source's messages a redrive takes, as what they were; the others stay."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from shield.clock import Clock
from shield.envelope import Envelope
from shield.headers import BROKER, RULE, read
from shield.plugin_results import left_in, taken_in
from shield.selection import Selection
from shield.transport import Source, Taken, Transport, once

COUNT_EVERY_S = 0.2
"""How often a source is asked how many it has left, for whoever watches."""
MOST_LISTED = 1000
"""How many messages that are not back a result names; the others are counted."""


@dataclass(frozen=True, slots=True)
class Unreturned:
    """One message that did not go back, and why."""

    why: str
    id: str | None
    rule: str
    destination: str
    producer: str
    attempt: int


@dataclass(slots=True)
class Counts:
    """What became of the messages that were read, but for those that went back."""

    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What was taken, by the rule that diverted it and where it was going."""
    skipped: int = 0
    """What `where` did not mean."""
    unknown: int = 0
    """What has no headers that say where it was going."""
    failed: int = 0
    """What could not be sent, or whose headers cannot be read."""
    refused: int = 0
    """What its headers want to go where neither a rule nor the operator lets it."""
    parked: int = 0
    """What was set aside too often, and is at the parking destination."""
    kept: int = 0
    """What was set aside too often, and stays: there is no parking destination."""
    expired: int = 0
    """What came too late: its time to live was over, and it is dropped."""
    listed: list[Unreturned] = field(default_factory=list)
    """Those that failed, were refused, or set aside too often; the first thousand."""

    def name(self, why: str, envelope: Envelope) -> None:
        """List one, while there is room."""
        if len(self.listed) >= MOST_LISTED:
            return
        was, rule = envelope.restored(), _rule(envelope)
        self.listed.append(
            Unreturned(why, envelope.id, rule, was.destination, was.producer, envelope.attempt)
        )


WhyNot = Callable[[Envelope], str | None]
Park = Callable[[Envelope, Callable[[Exception | None], None]], None]


def parking(transport: Transport, destination: str | None) -> Park:
    """Return what sends a message to the parking destination, with all its headers."""

    def park(envelope: Envelope, done: Callable[[Exception | None], None]) -> None:
        if destination is not None:
            envelope = replace(envelope, destination=destination, routing_key=None, partition=None)
        transport.send(envelope, done)

    return park


class FilteredSource(Source):
    """The messages of another source that are to go back, as they were before.

    Args:
        source: where they are.
        selection: which are meant, where those that are set aside too often are not parked.
        limit: how many may be on their way or back; None for all.
        park: sends elsewhere what was set aside too often; None lets it stay.
        key_of: whose later messages stay where one before them has been given up.
        why_not: says of a message, as it was, why it may not go there; None where all may.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        *,
        selection: Selection,
        limit: int | None = None,
        park: Park | None = None,
        key_of: Callable[[Envelope], Hashable] = lambda _envelope: None,
        why_not: WhyNot | None = None,
    ) -> None:
        self.tally = Counts()
        self._source = source
        self._clock = clock
        if source.believed:
            selection = replace(selection, signer=None)
        self._selection = selection if source.diverted else replace(selection, anywhere=True)
        self._room = inf if limit is None else limit
        self._park = park
        self._key_of = key_of
        self._why_not = why_not
        self._given_up: set[Hashable] = set()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._parking = 0
        self._unparked: deque[Taken] = deque()
        self._count_at_s = -inf
        self.seen_left: int | None = None
        """How many were left when its own thread looked last: others must not ask the source."""
        source.select(self._selection if park is None else replace(self._selection, below=None))

    @property
    def counts_deliveries(self) -> bool:
        """Whether the source beneath counts what comes back."""
        return self._source.counts_deliveries

    def look_only(self) -> None:
        """Say so to the source beneath."""
        self._source.look_only()

    def take(self, most: int, timeout_s: float) -> Sequence[Taken]:
        """Return up to so many that are meant."""
        room = min(most, self._room)
        if room <= 0:
            self._changed.clear()
            self._clock.wait(self._changed, timeout_s)
            return ()
        picked = []
        self._give_up_unparked()
        for taken in taken_in(self._source.take(int(room), timeout_s), int(room)):
            was = self._picked(taken)
            if was is not None:
                picked.append(Taken(was, taken))
        if self._clock.now() >= self._count_at_s:
            self.left()
        return picked

    def _give_up_unparked(self) -> None:
        """Tell the source, on the thread that uses it, of those that could not be parked."""
        while self._unparked:
            self._source.give_up(self._unparked.popleft())

    def _picked(self, taken: Taken) -> Envelope | None:
        """Return the message as it was; None where it is not to go back."""
        selection = self._selection
        envelope = taken.envelope = selection.known(taken.envelope)
        fault = envelope.fault
        if fault is None and selection.means(envelope):
            return self._meant(taken)
        if selection.wants(envelope) and not selection.is_lost(envelope):
            self._set_apart(taken, fault)
            return None
        if selection.wants(envelope):
            self.tally.unknown += 1
        else:
            self.tally.skipped += 1
        self._source.leave(taken)
        return None

    def _meant(self, taken: Taken) -> Envelope | None:
        """Return the message as it was; None where one before it of its key was given up."""
        was = taken.envelope.restored()
        if self._given_up and self._key_of(was) in self._given_up:
            self._note_failed("one before it with the same key failed", taken.envelope)
            self._source.give_up(taken)
            return None
        why = None if self._why_not is None else self._why_not(was)
        if why is not None:
            self._refuse(taken, why)
            return None
        self._hand_out(taken, 1)
        return was

    def _refuse(self, taken: Taken, why: str) -> None:
        with self._lock:
            self.tally.refused += 1
            self.tally.name(why, taken.envelope)
        self._source.give_up(taken)

    def _hand_out(self, taken: Taken, messages: int) -> None:
        with self._lock:
            self._room -= messages
            self.tally.found[_rule(taken.envelope), taken.envelope.restored().destination] += (
                messages
            )

    # --- set aside too often, or unreadable -----------------------------------------------------

    def _set_apart(self, taken: Taken, fault: str | None) -> None:
        """Park a message, or leave it."""
        envelope = taken.envelope
        why = f"set aside {envelope.attempt} times" if fault is None else f"unreadable: {fault}"
        if self._park is None:
            with self._lock:
                self.tally.kept += fault is None
                self.tally.failed += fault is not None
                self.tally.name(why, envelope)
            self._source.leave(taken)
            return
        with self._lock:
            self._parking += 1

        def ended(error: Exception | None) -> None:
            if error is None:
                self._source.forget(taken)
            else:
                self._unparked.append(taken)
            with self._lock:
                self.tally.parked += error is None
                self.tally.failed += error is not None
                self.tally.name(why if error is None else f"cannot be parked: {error}", envelope)
                self._parking -= 1
            self._changed.set()

        self._park(envelope, once(ended))

    @property
    def parking(self) -> int:
        """How many are on their way to the parking destination."""
        return self._parking

    def settle(self, timeout_s: float = inf) -> None:
        """Return when none is any more, or the time is over."""
        deadline = self._clock.now() + timeout_s
        while self._parking and self._clock.now() < deadline:
            self._changed.clear()
            if self._parking:
                self._clock.wait(self._changed, 0.1)
        self._give_up_unparked()

    # --- what becomes of those that were taken --------------------------------------------------

    def note_failed(self, taken: Taken, error: Exception, *, holds_key: bool = True) -> None:
        """Note that one cannot be sent; what comes later of its key is given up, too.

        Unless that one is at fault: it would fail again, and for ever hold up those behind it.
        """
        key = self._key_of(taken.envelope)
        if key is not None and holds_key:
            self._given_up.add(key)
        inner = self._own(taken)
        self._hand_out(inner, -1)
        self._note_failed(f"{type(error).__name__}: {error}", inner.envelope)

    def note_expired(self, taken: Taken) -> None:
        """Note that one came too late; it is forgotten, and was not sent."""
        self._hand_out(self._own(taken), -1)
        self.tally.expired += 1

    def _note_failed(self, why: str, envelope: Envelope) -> None:
        with self._lock:
            self.tally.failed += 1
            self.tally.name(why, envelope)

    def forget(self, taken: Taken) -> None:
        """Note that it is back."""
        self._source.forget(self._own(taken))
        self._changed.set()

    def failed(self, taken: Taken) -> None:
        """Let it come again."""
        inner = self._own(taken)
        self._hand_out(inner, -1)
        self._source.failed(inner)
        self._changed.set()

    def give_up(self, taken: Taken) -> None:
        """Let it stay."""
        self._source.give_up(self._own(taken))

    def left(self) -> int | None:
        """Return how many may still be taken at the most."""
        self._count_at_s = self._clock.now() + COUNT_EVERY_S
        left = left_in(self._source.left())
        if self._room < inf:
            left = int(self._room) if left is None else min(left, int(self._room))
        self.seen_left = left
        return left

    def close(self) -> None:
        """Close what it picks from."""
        self._source.close()

    @staticmethod
    def _own(taken: Taken) -> Taken:
        assert isinstance(taken.position, Taken)
        return taken.position


def without_broker(envelope: Envelope) -> Envelope:
    """Return a message as it goes back: which broker it was going to has been its last news."""
    if envelope.broker is None or envelope.is_diverted:  # parked, it keeps all
        return envelope
    return replace(envelope, marks=tuple(pair for pair in envelope.marks if pair[0] != BROKER))


def _rule(envelope: Envelope) -> str:
    rule: str = read(dict(envelope.marks), RULE, "")
    return rule
