"""How much waits at a broker: read now and then by one thread for each, however many rules ask."""

from __future__ import annotations

import logging
import random
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from shield.clock import Clock, SystemClock
from shield.process_hooks import ForkStage, after_fork
from shield.url import URL

log = logging.getLogger("shield.backlog")
EVERY_S = 1.0
"""How often a place is read, unless somebody asks for more."""
EARLY = 0.5
"""What is due within this part of its pause is read along with what is due: few reads for many."""
JITTER = 0.2
"""By which part, more or less, the pauses differ, so that processes do not ask all at once."""
MAX_PLACES = 1000
END_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class BacklogTarget:
    """Where messages wait: in a queue, or in a topic for a group of consumers."""

    destination: str
    group: str = ""
    via: URL | None = field(default=None, repr=False)
    """What tells how much, where it is not asked of the broker in the client's own way."""

    def __str__(self) -> str:
        group = f", group {self.group}" if self.group else ""
        return f"{self.destination}{group}{f', by {self.via}' if self.via else ''}"


Changed = Callable[[BacklogTarget, str | None], None]
"""Told that what waits at a place is unknown, and why, or with None that it is known again."""


class BacklogReader(ABC):
    """Reads how much waits at one broker. An adapter's; used by one thread."""

    @abstractmethod
    def read(self, places: Sequence[BacklogTarget]) -> Mapping[BacklogTarget, int | str]:
        """Return how many messages wait at each place, or in words why that is not known.

        May block for some seconds. Raises what ails all of them, as a broker that is away.
        """

    @abstractmethod
    def close(self) -> None:
        """Close its connections."""


class Watch:
    """What is known of one place; written by the thread that polls, read by any."""

    __slots__ = ("due_s", "error", "every_s", "place", "sample")

    def __init__(self, place: BacklogTarget, every_s: float = EVERY_S) -> None:
        self.place = place
        self.every_s = every_s
        """How often it is read: as often as the most impatient of its rules asks."""
        self.due_s = -inf
        """When it is to be read next, in monotonic seconds."""
        self.sample: tuple[float, int] | None = None
        """When it was read last, in monotonic seconds, and how much waited; None before that."""
        self.error: str | None = None
        """Why it could not be read the last time; None where it could."""

    def learn(self, now: float, found: int | str) -> bool:
        """Take an answer; log, and return whether, it cannot be read now, or can be again."""
        before = self.error
        if isinstance(found, str):
            self.error = found
            if found != before:
                log.warning("the backlog of %s is unknown: %s", self.place, found)
        else:
            self.sample, self.error = (now, found), None
            if before is not None:
                log.info("the backlog of %s is known again", self.place)
        return before != self.error


class Poller:
    """Polls all places of one broker that somebody watches, on a thread of its own.

    Each is read as often as it is asked for, or a little more, together with others.

    Args:
        make_reader: connects, lazily or at once; it is called again after a read that failed.
        clock: by which it waits, and notes when it has read.
        changed: is told when a place becomes unknown, or known again.
    """

    def __init__(
        self,
        make_reader: Callable[[], BacklogReader],
        clock: Clock,
        changed: Changed = lambda _place, _error: None,
    ) -> None:
        self._make_reader = make_reader
        self._clock = clock
        self._changed = changed
        self._lock = threading.Lock()
        self._watches: dict[BacklogTarget, Watch] = {}
        self._reader: BacklogReader | None = None
        self._stopped = False
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, place: BacklogTarget, every_s: float = EVERY_S) -> Watch:
        """Return what is known of a place, from now on; beyond a thousand of them, nothing is.

        The first reading comes at once, the next ones every so many seconds, or more often where
        somebody else has asked for that.
        """
        with self._lock:
            found = self._watches.get(place)
            if found is None:
                found = Watch(place, every_s)
                if len(self._watches) >= MAX_PLACES:
                    found.error = f"more than {MAX_PLACES} places are watched"
                    return found
                self._watches[place] = found
                self._woken.set()
            elif every_s < found.every_s:
                found.every_s, found.due_s = every_s, -inf
                self._woken.set()
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(
                    target=self._run, name="shield-backlog", daemon=True
                )
                self._thread.start()
        return found

    def stop(self) -> None:
        """End the thread; wait a second for it, not for a broker that does not answer."""
        self._stopped = True
        self._woken.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(END_WITHIN_S)

    def _run(self) -> None:
        while not self._stopped:
            self._woken.clear()
            self.poll()
            self._clock.wait(self._woken, self._pause_s())
        self._disconnect()

    def _pause_s(self) -> float:
        """Return how long it is until a place is due; nothing where one was forgotten meanwhile."""
        with self._lock:
            due_s = min((watch.due_s for watch in self._watches.values()), default=inf)
        return 0.0 if self._stopped else max(0.0, due_s - self._clock.now())

    def poll(self) -> None:
        """Read the places that are due, where any is, and with them those that soon will be."""
        now = self._clock.now()
        with self._lock:
            watches = {
                place: watch
                for place, watch in self._watches.items()
                if watch.due_s <= now + EARLY * watch.every_s
            }
        if not any(watch.due_s <= now for watch in watches.values()):
            return
        found: Mapping[BacklogTarget, int | str]
        try:
            if self._reader is None:
                self._reader = self._make_reader()
            found = self._reader.read(list(watches))
        except Exception as error:
            found = dict.fromkeys(watches, str(error) or type(error).__name__)
            self._disconnect()
        now = self._clock.now()
        part = 1.0 + JITTER * random.uniform(-1.0, 1.0)
        for place, watch in watches.items():
            if watch.learn(now, found.get(place, "the broker does not say")):
                self._changed(place, watch.error)
            watch.due_s = now + watch.every_s * part

    def _disconnect(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            try:
                reader.close()
            except Exception as error:
                log.info("the connection of a backlog's reader did not close well: %r", error)


class Backlogs:
    """One client's way to its broker's backlogs; clients of one broker share a poller.

    Args:
        origin: which broker, as `Transport.origin`.
        make_reader: makes a reader with this client's settings, and without the client.
        clock: the Shield's.
        changed: a method that is told when a place becomes unknown, or known again, as
            `Shield.backlog_changed`; its object is not kept alive.
    """

    def __init__(
        self,
        origin: str,
        make_reader: Callable[[], BacklogReader],
        clock: Clock | None = None,
        changed: Changed | None = None,
    ) -> None:
        self.origin = origin
        self._make_reader = make_reader
        self._clock = clock or SystemClock()
        self._changed = None if changed is None else weakref.WeakMethod(changed)
        self._open = True

    def watch(self, place: BacklogTarget, every_s: float = EVERY_S) -> Watch | None:
        """Return what is known of a place, and have it read from now on; None once closed."""
        with _lock:
            if not self._open:
                return None
            key = (self.origin, self._clock.now)
            shared = _shared.get(key)
            if shared is None:
                shared = _shared[key] = _Shared(self._make_reader, self._clock)
            shared.users[id(self)] = self._changed
        return shared.poller.watch(place, every_s)

    def close(self) -> None:
        """Say that the client is closed; the broker's last one ends the thread."""
        key = (self.origin, self._clock.now)
        with _lock:
            self._open = False
            shared = _shared.get(key)
            if shared is None:
                return
            shared.users.pop(id(self), None)
            if shared.users:
                return
            del _shared[key]
        shared.poller.stop()

    def __del__(self) -> None:
        """As `close`: the client is gone."""
        if hasattr(self, "_open") and self._open:
            self.close()


class _Shared:
    """A poller and who uses it; each Shield among them is told once of a change."""

    def __init__(self, make_reader: Callable[[], BacklogReader], clock: Clock) -> None:
        self.poller = Poller(make_reader, clock, self._changed)
        self.users: dict[int, weakref.WeakMethod[Changed] | None] = {}

    def _changed(self, place: BacklogTarget, error: str | None) -> None:
        with _lock:
            told = {user() for user in self.users.values() if user is not None}
        for changed in told:
            if changed is not None:
                changed(place, error)


_lock = threading.RLock()  # a Backlogs may be collected, and so closed, while it is held
_shared: dict[tuple[str, Callable[[], float]], _Shared] = {}


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _shared.clear()


after_fork(_after_fork_in_child, ForkStage.RESOURCES)
