"""A spool as a source: one broker's messages, the oldest first."""

from __future__ import annotations

import heapq
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from shield import Source, Taken
from shield.plugins.actions.spool.progress import Progress
from shield.plugins.actions.spool.storage.chunks import envelopes_in
from shield.plugins.actions.spool.storage.store import Position, Store, StoredChunk

log = logging.getLogger("shield.spool")
MOST_CHUNKS = 64


class SpoolSource(Source):
    """Reads chunk by chunk, and hands out their messages; what failed comes again in its turn.

    Args:
        store: where it reads.
        origin: the broker whose messages it gives; None for all, each with a mark that names it.
        deliveries: is told what was delivered.
        newest: says up to which chunk messages may go out.
        noted: called where a delivery is the first that waits to be written.
    """

    diverted = False
    believed = True

    def __init__(
        self,
        store: Store,
        origin: str | None,
        deliveries: Progress,
        newest: Callable[[], int],
        noted: Callable[[], None],
    ) -> None:
        self._store = store
        self._origin = origin
        self._deliveries = deliveries
        self._newest = newest
        self._noted = noted
        self._delivered = store.delivered()
        self._ready: deque[Taken] = deque()
        self._returned: list[tuple[Position, Taken]] = []
        self._lock = threading.Lock()
        self._last = 0
        self._chunk_messages = 1
        self._most_chunks = MOST_CHUNKS
        self._more = threading.Event()

    def wake(self) -> None:
        """Say that there is more to read."""
        self._more.set()

    def take(self, most: int, timeout_s: float) -> Sequence[Taken]:
        """Return what failed before, else what has not been taken yet."""
        self._more.clear()
        taken = self._take(most)
        if not taken and self._more.wait(timeout_s):
            taken = self._take(most)
        return taken

    def _take(self, most: int) -> list[Taken]:
        if self._returned:
            with self._lock:
                count = min(most, len(self._returned))
                return [heapq.heappop(self._returned)[1] for _ in range(count)]
        if not self._ready:
            self._read(most)
        ready = self._ready
        return [ready.popleft() for _ in range(min(most, len(ready)))]

    def _read(self, most: int) -> None:
        newest = self._newest()
        if newest <= self._last:
            return
        chunks = max(1, min(self._most_chunks, most // self._chunk_messages))
        try:
            found = self._store.read(self._origin, self._last, newest, chunks)
        except sqlite3.Error as error:
            self._pass_over(chunks, newest, error)
            return
        for stored in found:
            self._open(stored)
        self._last = found[-1].id if found else newest

    def _pass_over(self, chunks: int, newest: int, error: sqlite3.Error) -> None:
        """Go on behind a chunk that cannot be read: of many, the bad one is looked for first."""
        self._most_chunks = 1
        self._more.set()
        if chunks > 1:
            return
        try:
            self._last = self._store.behind(self._last)
        except sqlite3.Error:
            self._last = newest
        log.error("spool %s: chunk %d: %s", self._store.file, self._last, error)

    def _open(self, stored: StoredChunk) -> None:
        number, chunk = stored.id, stored.chunk
        try:
            envelopes = envelopes_in(chunk)
        except ValueError as error:
            log.error("spool %s: chunk %d: %s", self._store.file, number, error)
            return
        delivered = self._delivered.pop(number, set())
        self._deliveries.opened(number, chunk.messages, delivered)
        self._chunk_messages = chunk.messages
        for place, envelope in enumerate(envelopes):
            if self._origin is None and chunk.origin:
                envelope = envelope.of_broker(chunk.origin)
            position = Position(number, place)
            if place not in delivered and not self._deliveries.is_parked(position):
                self._ready.append(Taken(envelope, position))

    def forget(self, taken: Taken) -> None:
        """Let its delivery be written down."""
        if self._deliveries.confirm(cast(Position, taken.position)):
            self._noted()

    def failed(self, taken: Taken) -> None:
        """Keep it for the next take, before all that is newer."""
        with self._lock:
            heapq.heappush(self._returned, (cast(Position, taken.position), taken))

    def give_up(self, taken: Taken) -> None:
        """Leave it in the file, parked."""
        self._noted()

    def close(self) -> None:
        """Do nothing: the store is another's."""
