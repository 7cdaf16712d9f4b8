"""One assigned partition: what was fetched of it and waits to be handed over, in its order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from math import inf
from typing import Any, Protocol

from kafka.structs import OffsetAndMetadata

from shield import Delivery, OverLimit, Permit, Verdict
from shield.action import Divert, Drop
from shield.chain.deferred import DeferredDelivery
from shield.engine.queueing.sojourn_monitor import LOOK_EVERY_S as LOOK_AT_LATE_S
from shield.engine.queueing.sojourn_monitor import SojournMonitor
from shield_kafka.client.internals import Assigned
from shield_kafka.consuming.in_flight import Outstanding, PermitRun
from shield_kafka.consuming.overflow import OverflowSend

LOW_MARK = 0.5
"""A partition that a bound has paused goes on when that has emptied to half."""
LOOK_EVERY_S = 0.01
"""How soon the answer to a send, or to a commit, is seen."""
UNSURE_S = 0.1
"""How soon it is seen that the client has found a position valid, as after a change of leader."""


class Sojourn:
    """How long what was fetched together waits, to the rules that bound that.

    The oldest goes first whatever happens: a commit says of all before it that they are done.
    """

    def __init__(self, standing: SojournMonitor, now: float) -> None:
        self._standing = standing
        self._came_s = now

    def rest(self, now: float) -> None:
        """Begin to count anew: until now the user himself let it wait."""
        self._came_s = now

    def offer(self, delivery: Delivery, now: float) -> Verdict:
        """Offer one; over the limit where it has waited too long."""
        refusal = self._standing.refusal(delivery, now - self._came_s, now)
        return self._standing.offer(delivery, refusal, now)

    def look(self, held: DeferredDelivery, now: float) -> None:
        """Refuse one that waits on, where it has waited too long by now."""
        refusal = self._standing.refusal(held.over.message, now - self._came_s, now)
        if refusal is not None:
            held.refuse(refusal, now)

    def leaves(self, permit: Permit, now: float) -> None:
        """Hear that one is handed over."""
        self._standing.leaves(permit, now - self._came_s, now)


class Gate(Protocol):
    """What a partition asks about its records."""

    def run(self, records: Sequence[Any]) -> Permit | None:
        """Admit records together; None where they are not, and nothing has happened."""
        ...

    def one(self, record: Any, sojourn: Sojourn | None) -> Permit | OverLimit | Drop:
        """Decide on one record; a Drop where a plugin has refused it."""
        ...

    def send(self, record: Any, over: OverLimit, step: Divert) -> OverflowSend:
        """Begin to send a record elsewhere."""
        ...

    @property
    def may_send(self) -> bool:
        """Whether one more record may be under way elsewhere."""
        ...

    @property
    def takes_runs(self) -> bool:
        """Whether records of this partition can be decided on together."""
        ...


class PendingRecord:
    """A record that is next, until it is handed over, or passed: dropped, or safe elsewhere."""

    __slots__ = ("_again_at_s", "_answer", "_held", "_sending", "_sojourn", "record")

    def __init__(
        self, record: Any, verdict: Permit | OverLimit | Drop, sojourn: Sojourn | None
    ) -> None:
        self.record = record
        self._sojourn = sojourn
        self._again_at_s = 0.0
        self._answer: Permit | Drop | None = None
        self._held: DeferredDelivery | None = None
        self._sending: OverflowSend | None = None
        if isinstance(verdict, OverLimit):
            self._held = DeferredDelivery(verdict, LOW_MARK)
        else:
            self._answer = verdict

    @property
    def under_way(self) -> bool:
        """Whether it is being sent elsewhere, so that the next may be decided on already."""
        return self._sending is not None

    def arrived(self) -> bool:
        """Tell whether its send elsewhere is confirmed; then it is counted, and passed."""
        sending = self._sending
        if sending is None or not sending.ended or sending.error is not None:
            return False
        assert self._held is not None
        self._held.diverted()
        self._sending, self._answer = None, Drop()
        return True

    @property
    def bound(self) -> bool:
        """Whether only commits can let it go on."""
        held = self._held
        return held is not None and self._answer is None and held.over.retry_after_s is None

    def wait_s(self, now: float) -> float:
        """Return after how many seconds to ask again."""
        if self._sending is not None:
            return 0.0 if self._sending.ended else LOOK_EVERY_S
        if self._answer is not None:
            return 0.0
        again_s = max(0.0, self._again_at_s - now)
        if self._sojourn is not None:
            again_s = min(again_s, LOOK_AT_LATE_S)
        return min(again_s, LOOK_EVERY_S) if self.bound else again_s

    def ask(self, now: float, judge: Gate) -> Permit | Drop | None:
        """Return a Permit to hand it over, a Drop to pass it, or None to ask again later."""
        while self._answer is None:
            held = self._held
            assert held is not None
            if self._sending is not None:
                if not self._sending.ended:
                    return None
                if self.arrived():
                    break
                held.failed(hopeless=self._sending.hopeless)
                self._sending = None
            if self._sojourn is not None:
                self._sojourn.look(held, now)
            step = held.next(now)
            if isinstance(step, Divert):
                self._sending = judge.send(self.record, held.over, step)
            elif isinstance(step, Permit | Drop):
                self._answer = step
            else:
                self._again_at_s = now + step
                return None
        return self._answer

    def let_go(self) -> None:
        """Leave it to whoever gets it next: it was neither handed over nor passed."""
        if isinstance(self._answer, Permit):
            self._answer.cancel()
        elif self._held is not None and not self.arrived() and self._answer is None:
            self._held.let_go()


class Partition:
    """Keeps the client's position at what is handed over or passed, while more is fetched.

    Args:
        state: the client's own.
        handed: where what is handed over is noted.
        records: what the client has fetched, in order.
        start: the client's position before them.
        end: the client's position behind them, from where it goes on when they are all gone.
        sojourn: asks for how long they may wait; None where they may for ever.
    """

    def __init__(
        self,
        state: Assigned,
        handed: Outstanding,
        records: Sequence[Any],
        start: OffsetAndMetadata,
        end: OffsetAndMetadata,
        sojourn: Sojourn | None = None,
    ) -> None:
        self.state = state
        self.sojourn = sojourn
        self._handed = handed
        self._stock = deque(records)
        self._front: deque[PendingRecord] = deque()
        self._reached = start
        self._end = end
        self._expected = start.offset
        self._stride = len(self._stock)

    @property
    def is_empty(self) -> bool:
        """Whether all that was fetched is handed over or passed."""
        return not (self._front or self._stock)

    @property
    def is_done(self) -> bool:
        """Whether that is so, and the client's position is, or is about to be, behind it."""
        return self.is_empty and self._expected == self._end.offset

    @property
    def bound(self) -> bool:
        """Whether only commits can let it go on."""
        return bool(self._front) and self._front[0].bound

    def wait_s(self, now: float) -> float:
        """Return after how many seconds to ask again; `inf` where the user has paused it."""
        if self.is_empty or self.state.paused:
            return inf
        if not self.state.is_fetchable():
            return UNSURE_S
        return self._front[0].wait_s(now) if self._front else 0.0

    # --- handing over -------------------------------------------------------------------------

    def take(self, most: int, now: float, judge: Gate) -> list[Any]:
        """Return up to so many records that are handed over now, in order."""
        taken: list[Any] = []
        while len(taken) < most:
            if self._front:
                answer = self._front[0].ask(now, judge)
                if answer is None:
                    break
                self._end_first(answer, taken, now, judge)
            elif self._stock:
                self._decide(taken, most - len(taken), judge)
            else:
                break
        self._look_ahead(now, judge)
        return taken

    def _decide(self, taken: list[Any], room: int, judge: Gate) -> None:
        """Take as many at once as are admitted together; one that is not goes to the front.

        A run that is refused is halved, and one that is admitted is followed by twice as many.
        """
        size = min(len(self._stock), room, self._stride) if judge.takes_runs else 1
        while size > 1:
            records = list(islice(self._stock, size))
            permit = judge.run(records)
            if permit is not None:
                for _ in records:
                    self._stock.popleft()
                self._hand(records, permit, judge)
                taken += records
                self._stride = 2 * size
                return
            size //= 2
        self._stride = 2
        self._ask_one(judge)

    def _ask_one(self, judge: Gate) -> None:
        record = self._stock.popleft()
        self._front.append(PendingRecord(record, judge.one(record, self.sojourn), self.sojourn))

    def _end_first(self, answer: Permit | Drop, taken: list[Any], now: float, judge: Gate) -> None:
        record = self._front.popleft().record
        if isinstance(answer, Permit):
            if self.sojourn is not None:
                self.sojourn.leaves(answer, now)
            self._hand([record], answer, judge)
            taken.append(record)
        else:
            self._reached = behind(record)

    def _hand(self, records: Sequence[Any], permit: Permit, judge: Gate) -> None:
        first, last = records[0], records[-1]
        self._handed.add(PermitRun(first.offset, last.offset + 1, permit, joins=judge.takes_runs))
        self._reached = behind(last)

    def _look_ahead(self, now: float, judge: Gate) -> None:
        """While the first are being sent elsewhere, send those behind them that go there, too."""
        while self._stock and self._front and self._front[-1].under_way and judge.may_send:
            self._ask_one(judge)
            self._front[-1].ask(now, judge)

    def pass_sent(self) -> None:
        """Pass what has arrived elsewhere; nothing is handed over, or sent, any more."""
        while self._front and self._front[0].arrived():
            self._reached = behind(self._front.popleft().record)
        self._move()

    # --- the client's position ----------------------------------------------------------------

    def place(self, taken: Sequence[Any], *, update_offsets: bool) -> None:
        """Put the client's position where hand-over is; it moves that itself where it iterates."""
        if taken and not update_offsets:
            self._expected = taken[-1].offset + 1
        else:
            self._move()

    def caught_up(self) -> bool:
        """Go on from where the client is; False where that is not where it was left.

        After a `seek`, an offset reset, or an iteration that was broken off, what was fetched
        is no longer what comes next.
        """
        position = self.state.position
        if position is None or position.offset != self._expected:
            return False
        self._move()
        return True

    def _move(self) -> None:
        target = self._end if self.is_empty else self._reached
        if self.state.position is not None:
            self.state.position = target
        self._expected = target.offset

    def let_go(self) -> None:
        """Forget what was not handed over: it comes again, here or elsewhere."""
        for undecided in self._front:
            undecided.let_go()
        self._front.clear()
        self._stock.clear()


def at(record: Any) -> OffsetAndMetadata:
    """Return the position of a record: from there it is fetched again."""
    return OffsetAndMetadata(record.offset, "", record.leader_epoch)


def behind(record: Any) -> OffsetAndMetadata:
    """Return the position behind a record."""
    return OffsetAndMetadata(record.offset + 1, "", record.leader_epoch)
