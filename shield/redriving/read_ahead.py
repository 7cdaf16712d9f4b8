"""What a source has read ahead: handed out in order, again where it failed, done with in order."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from shield.envelope import Envelope
from shield.selection import Mark, Selection
from shield.transport import Source, Taken


@dataclass(frozen=True, slots=True, order=True)
class RecordSlot:
    """Where a message stands: its turn among all, where it begins, and what comes after it.

    A lane is what is read from its beginning to its end: a partition, a file, one connection.
    """

    turn: int
    lane: Hashable
    begins: int
    after: int


class ReadAheadBuffer:
    """Messages that were read and are not forgotten yet, each in its turn. Thread-safe.

    One thread reads them and puts them here, another takes them; from any thread they are
    forgotten, in any order, or go back to be taken again before all that stand behind them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._turns = itertools.count()
        self._fresh: deque[Taken] = deque()
        self._again: list[tuple[RecordSlot, Taken]] = []
        self._open: dict[Hashable, deque[int]] = {}
        self._forgotten: dict[Hashable, set[int]] = {}
        self._newly: dict[Hashable, list[tuple[int, int]]] = {}
        self._stays: dict[Hashable, int] = {}
        """Where the first message begins that stays, in lanes that have one."""

    # --- who reads ------------------------------------------------------------------------------

    def put(self, lane: Hashable, begins: int, after: int, envelope: Envelope) -> None:
        """Add the next message of a lane; `after` is where the one behind it begins."""
        with self._changed:
            place = RecordSlot(next(self._turns), lane, begins, after)
            self._open.setdefault(lane, deque()).append(after)
            self._forgotten.setdefault(lane, set())
            self._fresh.append(Taken(envelope, place))
            self._changed.notify()

    def passed(self, lane: Hashable) -> int | None:
        """Return up to where all of a lane is forgotten, but for what stays.

        None where that is as far as before.
        """
        reached = None
        with self._changed:
            waiting, forgotten = self._open.get(lane, deque()), self._forgotten.get(lane, set())
            while waiting and waiting[0] in forgotten:
                reached = waiting.popleft()
                forgotten.discard(reached)
        return reached

    def newly_forgotten(self, lane: Hashable) -> list[tuple[int, int]]:
        """Return what was forgotten of a lane since the last time: from where to where."""
        with self._changed:
            return self._newly.pop(lane, [])

    def stays_from(self, lane: Hashable) -> int | None:
        """Return where the first message of a lane begins that stays; None where none does."""
        with self._changed:
            return self._stays.get(lane)

    def drop(self, lane: Hashable) -> None:
        """Drop a lane: what is not taken of it is not handed out, nor does it come again."""
        with self._changed:
            self._open.pop(lane, None)
            self._forgotten.pop(lane, None)
            self._newly.pop(lane, None)
            self._stays.pop(lane, None)
            self._fresh = deque(t for t in self._fresh if _place(t).lane != lane)
            self._again = [pair for pair in self._again if pair[0].lane != lane]
            heapq.heapify(self._again)

    @property
    def untaken(self) -> int:
        """How many wait to be taken, also those that failed."""
        with self._changed:
            return len(self._fresh) + len(self._again)

    def is_open(self, lane: Hashable) -> bool:
        """Tell whether a lane has messages that are not forgotten, or stay."""
        with self._changed:
            return lane in self._stays or len(self._open.get(lane, ())) > len(
                self._forgotten.get(lane, ())
            )

    # --- who takes ------------------------------------------------------------------------------

    def take(self, most: int, timeout_s: float) -> list[Taken]:
        """Return up to so many, in turn; none where none is there in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (self._fresh or self._again):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    break
            taken: list[Taken] = []
            while self._again and len(taken) < most:
                taken.append(heapq.heappop(self._again)[1])
            while self._fresh and len(taken) < most:
                taken.append(self._fresh.popleft())
            return taken

    def forget(self, taken: Taken) -> bool:
        """Note that it need not come again; False where its lane was dropped."""
        place = _place(taken)
        with self._changed:
            if place.lane not in self._forgotten:
                return False
            self._forgotten[place.lane].add(place.after)
            self._newly.setdefault(place.lane, []).append((place.begins, place.after))
            return True

    def leave(self, taken: Taken) -> bool:
        """Note that it stays and is done with here; False where its lane was dropped."""
        place = _place(taken)
        with self._changed:
            if place.lane not in self._forgotten:
                return False
            first = self._stays.get(place.lane, place.begins)
            self._stays[place.lane] = min(first, place.begins)
            self._forgotten[place.lane].add(place.after)
            return True

    def failed(self, taken: Taken) -> None:
        """Let it come again, before all that stand behind it."""
        place = _place(taken)
        with self._changed:
            if place.lane in self._open:
                heapq.heappush(self._again, (place, taken))
                self._changed.notify()


class ReadAheadSource(Source):
    """A source that puts what it reads into `in_turn`, from where it is taken and forgotten.

    One that can only remember up to where a lane is forgotten asks `moved`: what stays, because it
    is not meant, holds that up, and beside it stands how far what is meant is forgotten, and what
    was forgotten while something before it was not.
    """

    def __init__(self) -> None:
        self.in_turn = ReadAheadBuffer()
        self.selection = Selection()
        self.positions: dict[Hashable, Mark] = {}
        """How far each lane was redriven, as it was last remembered."""

    def take(self, most: int, timeout_s: float) -> list[Taken]:
        """Return up to so many, in turn."""
        return self.in_turn.take(most, timeout_s)

    def forget(self, taken: Taken) -> None:
        """Note that it need not come again."""
        self.in_turn.forget(taken)

    def failed(self, taken: Taken) -> None:
        """Let it come again, before those behind it."""
        self.in_turn.failed(taken)

    def select(self, selection: Selection) -> None:
        """Hear which are meant: what stays is remembered by that."""
        self.selection = selection

    def was_forgotten(self, position: Mark, begins: int, envelope: Envelope) -> bool:
        """Tell whether an earlier redrive has forgotten what begins there."""
        return position.covers(begins, self.selection.known(envelope))

    def leave(self, taken: Taken) -> None:
        """Let it stay: nothing is forgotten past it."""
        self.in_turn.leave(taken)

    def moved(self, lane: Hashable) -> Mark | None:
        """Return how far a lane is redriven now; None where that is as far as before."""
        upto = self.in_turn.passed(lane)
        forgotten = self.in_turn.newly_forgotten(lane)
        before = position = self.positions.get(lane, Mark(0))
        if upto is not None:
            stays = self.in_turn.stays_from(lane)
            at = upto if stays is None else min(stays, upto)
            position = before.moved(at, self.selection, upto)
        position = position.besides(forgotten)
        if position == before:
            return None
        self.positions[lane] = position
        return position


def _place(taken: Taken) -> RecordSlot:
    assert isinstance(taken.position, RecordSlot)
    return taken.position
