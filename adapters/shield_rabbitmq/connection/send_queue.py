"""The write thread's queue where rules bound how long messages may wait in it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable

from shield import Refusal, Signals
from shield_rabbitmq.connection.pending_publish import PendingPublish

Entry = tuple[float, PendingPublish]
"""A message, and when it came."""


class SendQueue:
    """A deque to whoever appends; what goes next is asked for with `next`.

    Messages that the same policies watch stand in one lane, which is served oldest first, or
    newest first while a policy says so; all others in a lane of their own, oldest first. Each
    arrival is a turn of its lane, so that as long as nothing stands it is one queue, and no lane
    waits for another. What a policy refuses is put by, for `refused`: its chain must not be run
    while this is locked.

    Any thread may call it.

    Args:
        signals: whose clock it goes by, and where it notes how long messages wait.
    """

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._lock = threading.RLock()  # a policy that fails is logged under it, by anyone's code
        self._first: deque[PendingPublish] = deque()
        """What was written, or asked for, before: it goes before all turns."""
        self._turns: deque[deque[Entry]] = deque()
        self._lanes: dict[Hashable, deque[Entry]] = {}
        self._refused: list[tuple[PendingPublish, Refusal]] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._first) + sum(map(len, self._lanes.values()))

    def append(self, sending: PendingPublish) -> None:
        """Put a message behind all others."""
        with self._lock:
            lane = self._lanes.setdefault(sending.waits, deque())
            lane.append((self._signals.now(), sending))
            self._turns.append(lane)

    def extendleft(self, sendings: Iterable[PendingPublish]) -> None:
        """Put messages before all others, one before the other; they have waited enough."""
        with self._lock:
            self._first.extendleft(sendings)

    def popleft(self) -> PendingPublish:
        """Take the oldest out, whoever refuses it; IndexError where there is none."""
        with self._lock:
            if self._refused:
                return self._refused.pop()[0]
            if self._first:
                return self._first.popleft()
            while True:
                lane = self._turns.popleft()
                if lane:
                    return lane.popleft()[1]

    def remove(self, sending: PendingPublish) -> None:
        """Take one out; ValueError where it is not here."""
        with self._lock:
            if sending in self._first:
                self._first.remove(sending)
                return
            for lane in self._lanes.values():
                for entry in lane:
                    if entry[1] is sending:
                        lane.remove(entry)
                        return
            raise ValueError("it is not in line")

    def take_out(self, wanted: Callable[[PendingPublish], bool]) -> list[PendingPublish]:
        """Take all those out of which that is true."""
        with self._lock:
            taken = [sending for sending in self._first if wanted(sending)]
            self._first = deque(sending for sending in self._first if not wanted(sending))
            for lane in self._lanes.values():
                taken += [sending for _, sending in lane if wanted(sending)]
                stay = [entry for entry in lane if not wanted(entry[1])]
                lane.clear()
                lane.extend(stay)
            return taken

    def next(self) -> PendingPublish:
        """Take out what is to be written next; IndexError where nothing is left that may be."""
        with self._lock:
            if self._first:
                return self._first.popleft()
            now = self._signals.now()
            while True:
                lane = self._turns.popleft()
                self._refuse_oldest(lane, now)
                if lane:
                    return self._from(lane, now)

    def look(self) -> None:
        """Put by what has waited too long, while nothing can be written."""
        with self._lock:
            now = self._signals.now()
            for lane in self._lanes.values():
                self._refuse_oldest(lane, now)

    def refused(self) -> list[tuple[PendingPublish, Refusal]]:
        """Take out what was put by, oldest first of each lane."""
        with self._lock:
            refused, self._refused = self._refused, []
            return refused

    def _from(self, lane: deque[Entry], now: float) -> PendingPublish:
        newest_first = lane[0][1].newest_first(now)
        came, sending = lane.pop() if newest_first else lane.popleft()
        self._signals.queue_s = now - came
        sending.leaves(now - came, now)
        return sending

    def _refuse_oldest(self, lane: deque[Entry], now: float) -> None:
        while lane:
            came, sending = lane[0]
            refusal = sending.refusal(now - came, now)
            if refusal is None:
                return
            lane.popleft()
            self._refused.append((sending, refusal))
