"""Brings one broker's messages back out of a spool, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import cast

from shield import End, Engine, Kind, Taken, Transport
from shield.plugins.actions.spool.open_clients import OpenClients
from shield.plugins.actions.spool.progress import Progress
from shield.plugins.actions.spool.source import SpoolSource
from shield.plugins.actions.spool.storage.store import Position
from shield.redriving.worker import KeyOf, Redriver

log = logging.getLogger("shield.spool")
TRY_AGAIN_S = 1.0
LOG_EVERY_S = 60.0


class SpoolSender:
    """Sends what is spooled, as the rules admit it, while a client of its broker is open.

    Args:
        source: the messages.
        shield: whose rules admit them.
        key_of: which messages keep their order even where a send fails.
        deliveries: where failures are noted.
        max_attempts: after so many failures that are its own a message is parked.
        ended: called last, by the thread.
        before: a drain of the same messages that is about to end; this one waits for it.
    """

    def __init__(
        self,
        source: SpoolSource,
        origin: str,
        engine: Engine,
        key_of: KeyOf,
        deliveries: Progress,
        max_attempts: int,
        ended: Callable[[SpoolSender], None],
        before: SpoolSender | None,
    ) -> None:
        self.origin = origin
        self.clients = OpenClients(origin, self.stop)
        self._source = source
        self._engine = engine
        self._deliveries = deliveries
        self._max_attempts = max_attempts
        self._ended = ended
        self._before = before
        self.stopped = False
        self._stopping = threading.Event()
        self._say_at_s = -inf
        self._redriver = Redriver(
            source,
            self.clients,
            partial(engine.readmit, where=End.SPOOLED),
            failed_as=End.SPOOLED,
            key_of=key_of,
            gives_up=self._gives_up,
        )
        self._thread = threading.Thread(target=self._run, name="shield-spool", daemon=True)

    def start(self, client: Transport) -> None:
        """Begin, through this client first."""
        self.clients.add(client)
        self._thread.start()

    def wake(self) -> None:
        """Look at once whether there is more."""
        self._source.wake()

    def stop(self) -> None:
        """Take no more; the thread ends when what is under way is answered."""
        self.stopped = True
        self._stopping.set()
        self._redriver.stop()
        self._source.wake()

    def join(self, timeout_s: float | None) -> None:
        """Return when the thread has ended, or the time is over."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        if self._before is not None:
            self._before.join(None)
            self._before = None
        try:
            while not self._comes_to_its_end():
                self._stopping.wait(TRY_AGAIN_S)
        finally:
            self.stopped = True
            self._ended(self)

    def _comes_to_its_end(self) -> bool:
        """Bring back what there is; False where an error that nobody foresaw has cut it short."""
        try:
            self._redriver.run(ended=lambda: self.clients.current is None)
        except Exception:
            self._say()
            return self.stopped or self.clients.current is None
        return True

    def _say(self) -> None:
        """Log the error that is being handled, once a minute."""
        now = time.monotonic()
        if now >= self._say_at_s:
            self._say_at_s = now + LOG_EVERY_S
            log.exception("what is spooled for %s is brought back after an error", self.origin)

    def _gives_up(self, taken: Taken, error: Exception) -> bool:
        """Count a failure that is the message's own; True where that makes one too many."""
        faulty = self.clients.is_faulty(error)
        if not (faulty or self.clients.is_hopeless(error)):
            return False
        position = cast(Position, taken.position)
        failure = self._deliveries.fail(position, error, 1 if faulty else self._max_attempts)
        if failure.parked:
            log.error(
                "a spooled message to %s is parked after %d attempts: %s; `shield spool ls` "
                "shows it (id %s)",
                taken.envelope.destination,
                failure.times,
                failure.error,
                taken.envelope.id,
            )
            self._engine.parked(taken.envelope.message())
            self._engine.report(Kind.PARKED, taken.envelope.message(), detail=failure.error)
        return failure.parked
