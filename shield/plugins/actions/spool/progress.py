"""What has become of messages that were taken from a spool, until the file says so."""

from __future__ import annotations

import threading
from collections import defaultdict, deque

from shield.plugins.actions.spool.storage.store import Failure, Position

Delivered = dict[int, list[int] | None]
Changes = tuple[Delivered, dict[Position, Failure]]


class Progress:
    """Notes deliveries as they are confirmed, and says which of them are to be written.

    A chunk leaves the file as a whole; until then the places in it that were delivered are
    written down beside it. Known is only what was taken and is still there: memory is bounded by
    what is under way.
    """

    def __init__(self, failures: dict[Position, Failure]) -> None:
        self._confirmed: deque[Position] = deque()
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}
        """How many messages each chunk that was taken still holds."""
        self._places: defaultdict[int, set[int]] = defaultdict(set)
        self._failures = failures
        self._failed: dict[Position, Failure] = {}

    def opened(self, chunk: int, messages: int, delivered: set[int]) -> None:
        """Hear of a chunk that is being taken, with what was delivered of it before."""
        with self._lock:
            self._open[chunk] = messages
            if delivered:
                self._places[chunk] = set(delivered)

    def confirm(self, position: Position) -> bool:
        """Note a delivery, from any thread; True where none was waiting to be written."""
        first = not self._confirmed
        self._confirmed.append(position)
        return first

    def fail(self, position: Position, error: Exception, most: int) -> Failure:
        """Note a failure that the message itself is the reason of; it is parked after `most`."""
        with self._lock:
            before = self._failures.get(position)
            times = 1 if before is None else before.times + 1
            failure = Failure(times, repr(error), times >= most)
            self._failures[position] = self._failed[position] = failure
        return failure

    def is_parked(self, position: Position) -> bool:
        """Tell whether a message is not to be tried any more."""
        failure = self._failures.get(position)
        return failure is not None and failure.parked

    # --- the writer's side ------------------------------------------------------------------------

    def changes(self) -> Changes:
        """Return what is to be written now."""
        confirmed = self._confirmed
        touched = set()
        with self._lock:
            for _ in range(len(confirmed)):
                chunk, place = confirmed.popleft()
                self._places[chunk].add(place)
                touched.add(chunk)
            delivered: Delivered = {}
            for chunk in touched:
                places = self._places[chunk]
                whole = len(places) >= self._open[chunk]
                delivered[chunk] = None if whole else sorted(places)
            failures, self._failed = self._failed, {}
        return delivered, failures

    def recorded(self, changes: Changes) -> None:
        """Forget chunks that are gone from the file."""
        gone = {chunk for chunk, places in changes[0].items() if places is None}
        if not gone:
            return
        with self._lock:
            for chunk in gone:
                self._open.pop(chunk, None)
                self._places.pop(chunk, None)
            if self._failures:
                for position in [p for p in self._failures if p.chunk in gone]:
                    del self._failures[position]

    def give_back(self, changes: Changes) -> None:
        """Take back what could not be written, so that it is tried again."""
        delivered, failures = changes
        with self._lock:
            self._failed = {**failures, **self._failed}
        for chunk in delivered:
            for place in list(self._places[chunk]):
                self._confirmed.append(Position(chunk, place))
