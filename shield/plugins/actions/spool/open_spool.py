"""A spool that is open: its file, the thread that writes to it, and those that bring back."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

from shield import End, Engine, Message, Transport
from shield.capabilities import FollowsDiversion
from shield.chain.retained import Retained
from shield.plugins.actions.spool.progress import Progress
from shield.plugins.actions.spool.sender import SpoolSender
from shield.plugins.actions.spool.settings import SpoolSettings
from shield.plugins.actions.spool.source import SpoolSource
from shield.plugins.actions.spool.storage.chunks import StoredRow, envelopes_in
from shield.plugins.actions.spool.storage.location import FileClaim
from shield.plugins.actions.spool.storage.recovery import open_store
from shield.plugins.actions.spool.storage.store import Position, StoredChunk
from shield.plugins.actions.spool.storage.writer import Writer
from shield.process_hooks import ForkStage, after_fork, at_exit
from shield.redriving.worker import KeyOf

WRITE_WITHIN_S = 5.0


class OpenSpool:
    """Takes messages and brings them back, from its opening until its last client is closed.

    What an earlier process left is counted by the Shield when this returns.

    Raises:
        SpoolError: the file cannot be used.
    """

    def __init__(
        self,
        file: Path,
        settings: SpoolSettings,
        engine: Engine,
        key_of: KeyOf,
    ) -> None:
        self._settings = settings
        self._engine = weakref.ref(engine)
        self._key_of = key_of
        self._lock = threading.RLock()
        self._sources: dict[str, SpoolSource] = {}
        self._drains: dict[str, SpoolSender] = {}
        self._ending = False
        self._over = threading.Event()
        self._claim = FileClaim(file)
        try:
            self._store = open_store(file, settings.size, settings.durability)
        except BaseException:
            self._claim.release()
            raise
        self._deliveries = Progress(self._store.failures())
        self._done = self._store.delivered()
        self._count_what_is_left(engine)
        self._writer = Writer(
            self._store, settings.size, self._deliveries, self._written, self._closed
        )
        _open.add(self)
        at_exit(_finish_all)

    def _count_what_is_left(self, engine: Engine) -> None:
        """Count by destination and producer; where policies hold, each message by its key too."""
        if any(isinstance(p, FollowsDiversion) for rule in engine.rules for p in rule.policies):
            for stored in self._store.all():
                self._count_one_by_one(engine, stored)
            return
        for destination, producer, number in self._store.labels():
            engine.found(Message(destination, 0, producer), End.SPOOLED, number)
        for number in self._store.touched():
            with suppress(LookupError):
                self._count_one_by_one(engine, self._store.chunk(number))

    def _count_one_by_one(self, engine: Engine, stored: StoredChunk) -> None:
        done = self._done.get(stored.id, set())
        with suppress(ValueError):  # who reads it will say so
            for place, envelope in enumerate(envelopes_in(stored.chunk)):
                if place not in done:
                    parked = self._deliveries.is_parked(Position(stored.id, place))
                    engine.found(envelope.message(), End.SPOOLED, holds=not parked)

    # --- messages ---------------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """Tell whether a message of that size would be taken now."""
        return self._writer.has_room(size)

    def keep(self, kept: Retained) -> None:
        """Take a message; where there is no room after all, its chain goes on."""
        try:
            row = StoredRow(kept.envelope(), kept.client.origin)
        except Exception as error:
            kept.go_on(error)
            return
        if not self._writer.put(kept, row):
            kept.go_on()

    def _written(self) -> None:
        for drain in list(self._drains.values()):
            drain.wake()

    # --- clients ----------------------------------------------------------------------------------

    def attach(self, client: Transport) -> None:
        """Bring back through this client, too, what is here for its broker."""
        engine = self._engine()
        with self._lock:
            if self._ending or engine is None:
                return
            before = self._drains.get(client.origin)
            if before is not None and not before.stopped:
                before.clients.add(client)
                return
            drain = self._drains[client.origin] = self._drain(client.origin, engine, before)
            drain.start(client)

    def _drain(self, origin: str, engine: Engine, before: SpoolSender | None) -> SpoolSender:
        if origin not in self._sources:
            self._sources[origin] = SpoolSource(
                self._store, origin, self._deliveries, self._newest, self._noted
            )
        return SpoolSender(
            self._sources[origin],
            origin,
            engine,
            self._key_of,
            self._deliveries,
            self._settings.max_attempts,
            self._drained,
            before,
        )

    def _newest(self) -> int:
        return self._writer.readable

    def _noted(self) -> None:
        self._writer.wake()

    def detach(self, client: Transport, timeout_s: float | None) -> None:
        """Bring nothing back through this client any more; with the last one, close the file.

        What has been handed over is written to the disk, also where there is no time for more.
        """
        self._writer.flush(WRITE_WITHIN_S)
        with self._lock:
            drain = self._drains.get(client.origin)
            if drain is None:
                return
            drain.clients.remove(client)
            if drain.clients.current is not None:
                return
            drain.stop()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        drain.join(timeout_s)
        if self._ending:
            self.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _drained(self, drain: SpoolSender) -> None:
        """Hear that a drain's thread is about to end; with the last one all ends."""
        with self._lock:
            if self._drains.get(drain.origin) is drain:
                del self._drains[drain.origin]
            if not self._drains:
                self._ending = True
                self._writer.finish()

    # --- the end ----------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing is taken any more."""
        return self._ending

    def join(self, timeout_s: float | None) -> None:
        """Return when the file is closed, or the time is over."""
        if not self._writer.is_current:
            self._over.wait(timeout_s)

    def finish(self) -> None:
        """Stop bringing back, write what there is, and close the file."""
        with self._lock:
            drains = list(self._drains.values())
            for drain in drains:
                drain.stop()
            if not drains:
                self._ending = True
                self._writer.finish()

    def _closed(self) -> None:
        self._claim.release()
        _open.discard(self)
        self._over.set()

    def forget(self) -> None:
        """In a forked child: the parent has the file. Its connections must not even be closed."""
        self._claim.forget()


# --- the process --------------------------------------------------------------------------------

_open: set[OpenSpool] = set()
_of_parents: list[OpenSpool] = []
"""Kept for good: to close them would end the parent's locks on their files."""


def _finish_all(within_s: float) -> None:
    until_s = time.monotonic() + max(1.0, within_s)  # what is accepted is to be on the disk
    for spool in list(_open):
        spool.finish()
    for spool in list(_open):
        spool.join(max(0.0, until_s - time.monotonic()))


def _forget_all() -> None:
    for spool in _open:
        spool.forget()
    _of_parents.extend(_open)
    _open.clear()


at_exit(_finish_all)
after_fork(_forget_all, ForkStage.RESOURCES)
