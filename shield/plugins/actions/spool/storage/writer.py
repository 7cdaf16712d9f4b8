"""One thread that writes to a spool's file: one commit, and one fsync, for many callers."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf

from shield.chain.blocking import wait_for
from shield.chain.retained import Retained
from shield.chain.runner import answering
from shield.engine.spin_lock import SpinLock
from shield.plugins.actions.spool.errors import SpoolError
from shield.plugins.actions.spool.progress import Progress
from shield.plugins.actions.spool.storage.chunks import StoredRow, chunks_of
from shield.plugins.actions.spool.storage.store import ROW_BYTES, Store, as_spool_error

log = logging.getLogger("shield.spool")
COMMIT_MESSAGES = 2000
COMMIT_BYTES = 4 * 2**20
QUEUE_MESSAGES = 2 * COMMIT_MESSAGES
QUEUE_BYTES = 4 * COMMIT_BYTES
RECORD_EVERY_S = 0.05
"""How long a delivery may stay unrecorded, and be repeated after a crash."""
TRY_AGAIN_S = 1.0
"""How long nothing is taken after the file could not be written."""
LOG_EVERY_S = 60.0

Waiting = tuple[Retained, StoredRow]


class Writer:
    """Writes what callers hand over, and what the drains have delivered. Ends with `finish`.

    Callers that may wait are held while too much is queued; others decline.

    Args:
        store: whose one writer this is.
        limit: bytes of messages that it may hold, those in the queue included.
        deliveries: what has been delivered, or has failed, since it was last asked.
        written: told after messages are on disk and counted.
        ended: called last, by the thread, when the store is closed.
    """

    def __init__(
        self,
        store: Store,
        limit: int,
        deliveries: Progress,
        written: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self.readable = store.last
        """The newest chunk whose messages are counted as spooled, so that they may go out."""
        self._store = store
        self._limit = limit
        self._deliveries = deliveries
        self._written = written
        self._ended = ended
        self._lock = SpinLock()
        self._room = threading.Condition(self._lock)
        self._woken = threading.Event()
        self._queue: deque[Waiting] = deque()
        self._queued_bytes = self._unended = 0
        self._finishing = self._closed = False
        self._not_before_s = 0.0
        self._logged_s = -inf
        self._thread = threading.Thread(target=self._run, name="shield-spool-writer", daemon=True)
        self._thread.start()

    # --- from any thread --------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """Tell whether a message of that size would fit now."""
        if time.monotonic() < self._not_before_s:
            return False
        return self._store.size + self._queued_bytes + size + ROW_BYTES <= self._limit

    def put(self, kept: Retained, row: StoredRow) -> bool:
        """Hand over a message; False where there is no room for it, or nobody to write it."""
        with self._lock:
            while self._is_full() and kept.may_wait() and not self._closed:
                wait_for(self._room)
            if self._closed or self._is_full() or not self.has_room(row.size):
                return False
            self._queue.append((kept, row))
            self._queued_bytes += row.size
            self._unended += 1
        if not self._woken.is_set():
            self._woken.set()
        return True

    def _is_full(self) -> bool:
        return len(self._queue) >= QUEUE_MESSAGES or self._queued_bytes >= QUEUE_BYTES

    def flush(self, timeout_s: float) -> None:
        """Return when all that was handed over is on disk or declined, or the time is over."""
        if self.is_current:
            return
        with self._lock:
            self._room.wait_for(lambda: not self._unended or self._closed, timeout_s)

    @property
    def finishing(self) -> bool:
        """Whether it is to end, or has ended."""
        return self._finishing

    @property
    def is_current(self) -> bool:
        """Whether the caller is the thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def wake(self) -> None:
        """Let it record deliveries soon."""
        self._woken.set()

    def finish(self) -> None:
        """Let it write what there is, close the file, and end."""
        self._finishing = True
        self._woken.set()

    def join(self, timeout_s: float | None) -> None:
        """Return when it has ended, or the time is over."""
        if not self.is_current:
            self._thread.join(timeout_s)

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._finishing or self._queue:
                self._woken.wait()
                if not self._queue and not self._finishing:
                    time.sleep(RECORD_EVERY_S)  # so that one commit records many
                self._woken.clear()
                batch = self._next()
                self._commit(batch)
                self._count_ended(len(batch))
            self._commit([])
        finally:
            with self._lock:
                self._closed = True
                left = list(self._queue)
                self._queue.clear()
                self._room.notify_all()
            self._decline(left, RuntimeError("the spool was closed"))
            self._close()

    def _next(self) -> list[Waiting]:
        """Take as much from the queue as one commit may hold."""
        batch: list[Waiting] = []
        size = 0
        while len(batch) < COMMIT_MESSAGES and size < COMMIT_BYTES:
            try:
                waiting = self._queue.popleft()
            except IndexError:
                return batch
            batch.append(waiting)
            size += waiting[1].size
        self._woken.set()
        return batch

    def _count_ended(self, messages: int) -> None:
        with self._lock:
            self._unended -= messages
            self._room.notify_all()

    def _commit(self, batch: list[Waiting]) -> None:
        """Write all in one commit, then let each message's caller know."""
        changes = self._deliveries.changes()
        try:
            self._store.write(chunks_of([row for _, row in batch]), *changes)
        except Exception as error:
            self._deliveries.give_back(changes)
            self._failed(batch, error)
            return
        finally:
            with self._lock:
                self._queued_bytes -= sum(row.size for _, row in batch)
                self._room.notify_all()
        self._deliveries.recorded(changes)
        with answering():
            Retained.all_stored([kept for kept, _ in batch])
        self.readable = self._store.last
        if batch:
            self._written()

    def _failed(self, batch: list[Waiting], error: Exception) -> None:
        """Decline for a while, and let the chains of those who wait go on."""
        now = time.monotonic()
        self._not_before_s = now + TRY_AGAIN_S
        if now >= self._logged_s + LOG_EVERY_S:
            self._logged_s = now
            log.error("%s; messages go on to the next action", self._named(error))
        self._decline(batch, self._named(error))
        if not self._finishing:
            time.sleep(RECORD_EVERY_S)
            self._woken.set()

    def _named(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            return as_spool_error(self._store.file, error)
        if isinstance(error, OSError):
            return SpoolError(error.strerror)
        return error

    def _decline(self, batch: Sequence[Waiting], error: Exception) -> None:
        with answering():
            for kept, _ in batch:
                kept.go_on(error)

    def _close(self) -> None:
        try:
            if self._store.size == 0:
                self._store.shrink()
            self._store.close()
        except sqlite3.Error as error:
            log.warning("%s", self._named(error))
        finally:
            self._ended()
