"""What was handed over of one partition and is not committed yet."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from operator import attrgetter

from shield import Outcome, Permit, Shield
from shield_kafka.client.internals import Assigned

MOST_RUNS = 64
"""From so many on, runs are joined: who never commits would keep one for each poll."""
Offset = int


class PermitRun:
    """Records that were admitted together: from the first offset up to, not including, the end."""

    __slots__ = ("end", "first", "joins", "permit")

    def __init__(self, first: Offset, end: Offset, permit: Permit, *, joins: bool) -> None:
        self.first = first
        self.end = end
        self.permit = permit
        self.joins = joins
        """Whether it can be one with others: no policy and no hook knows its records one by one."""

    def below(self, offset: Offset) -> int:
        """Return how many of its records are below an offset.

        Where offsets are missing, as in compacted topics, it takes them to be missing evenly.
        """
        messages = self.permit.message.messages
        if offset >= self.end:
            return messages
        if offset <= self.first:
            return 0
        return messages * (offset - self.first) // (self.end - self.first)


class Outstanding:
    """The runs of one partition, by offset, for as long as the consumer has that partition.

    A commit, which may come on the client's I/O thread, settles what is below its offset; of a
    run that it cuts, the part, whose bytes are taken to be its share of the run's.

    Args:
        shield: counts them.
        state: the client's, by which a partition that was away is told from one that was not.
    """

    def __init__(self, shield: Shield, state: Assigned) -> None:
        self.state = state
        self._shield = shield
        self._lock = threading.Lock()
        self._runs: list[PermitRun] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, run: PermitRun) -> None:
        """Note what is handed over now: mostly behind all others; after a `seek`, anywhere."""
        with self._lock:
            last = self._runs[-1] if self._runs else None
            if last is None or last.first <= run.first:
                if last is None or len(self._runs) < MOST_RUNS or not self._joined(last, run):
                    self._runs.append(run)
            else:
                insort(self._runs, run, key=_first)

    def done(self, upto: Offset) -> None:
        """Settle what is below an offset as delivered: it is committed."""
        permits: list[Permit] = []
        with self._lock:
            begun = bisect_left(self._runs, upto, key=_first)
            kept = []
            for run in self._runs[:begun]:
                if run.end <= upto:
                    permits.append(run.permit)
                    continue
                kept.append(run)
                part = self._cut(run, upto)
                if part is not None:
                    permits.append(part.permit)
            self._runs[:begun] = kept
        if permits:
            self._shield.engine.delivered(permits)

    def all_done(self) -> None:
        """Settle everything as delivered."""
        with self._lock:
            runs, self._runs = self._runs, []
        if runs:
            self._shield.engine.delivered([run.permit for run in runs])

    def lost(self) -> None:
        """Settle everything as failed: whoever gets the partition gets it again."""
        with self._lock:
            runs, self._runs = self._runs, []
        for run in runs:
            run.permit.settle(Outcome.FAILED)

    def take_back(self, first: Offset, end: float) -> None:
        """Undo what was admitted from one offset up to another: it was not handed over."""
        with self._lock:
            back = [run for run in self._runs if run.end > first and run.first < end]
            self._runs = [run for run in self._runs if run not in back]
            for run in back:
                part = self._cut(run, first)
                if part is not None:
                    self._runs.append(part)
            self._runs.sort(key=_first)
        for run in back:
            run.permit.cancel()

    def _cut(self, run: PermitRun, offset: Offset) -> PermitRun | None:
        """Cut off what is below an offset, as a run of its own; None where there is nothing."""
        below = run.below(offset)
        if not below:
            return None
        size = run.permit.message.size * below // run.permit.message.messages
        part = self._shield.engine.split(run.permit, below, size)
        first, run.first = run.first, offset
        return PermitRun(first, offset, part, joins=run.joins)

    def _joined(self, last: PermitRun, run: PermitRun) -> bool:
        """Make the last run one with the run behind it, where that can be; tell whether it is."""
        fits = last.joins and run.joins and last.permit.flow is run.permit.flow
        if fits and last.end <= run.first:
            self._shield.engine.join(last.permit, run.permit)
            last.end = run.end
            return True
        return False


_first = attrgetter("first")
