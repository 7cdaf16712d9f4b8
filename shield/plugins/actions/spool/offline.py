"""A spool's file that a command has claimed: no process uses it meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

from shield import URL, Envelope, ShieldError, Source, Taken, Transport
from shield.plugins.actions.spool.errors import DamagedError, SpoolError
from shield.plugins.actions.spool.progress import Progress
from shield.plugins.actions.spool.snapshot import SpooledMessage, entries_in, overview_of
from shield.plugins.actions.spool.source import SpoolSource
from shield.plugins.actions.spool.storage.location import FileClaim
from shield.plugins.actions.spool.storage.recognition import recognise
from shield.plugins.actions.spool.storage.recovery import open_store
from shield.plugins.actions.spool.storage.store import Store, as_spool_error
from shield.transport import Done

NO_LIMIT = 2**46


Meant = Callable[[SpooledMessage], bool]


def purge(file: Path, meant: Meant) -> int:
    """Delete those messages of a spool that are meant; return how many.

    Raises:
        SpoolError: a process uses it, or it cannot be opened.
    """
    with _to_oneself(file) as store:
        gone: dict[int, set[int]] = {}
        for entry in filter(meant, entries_in(file)):
            gone.setdefault(entry.position.chunk, set()).add(entry.position.place)
        _delete(store, gone)
    return sum(map(len, gone.values()))


def unpark(file: Path, meant: Meant) -> int:
    """Have those parked messages tried again that are meant; return how many.

    What they failed with last stays beside them.

    Raises:
        SpoolError: a process uses it, or it cannot be opened.
    """
    with _to_oneself(file) as store:
        again = {
            entry.position: entry.failure._replace(times=0, parked=False)
            for entry in filter(meant, entries_in(file))
            if entry.failure is not None and entry.failure.parked
        }
        store.write(failures=again)
    return len(again)


@contextmanager
def _to_oneself(file: Path) -> Iterator[Store]:
    """Open a spool that nobody uses meanwhile.

    Raises:
        SpoolError: a process uses it, or it cannot be opened.
    """
    claim = _claimed(file)
    try:
        store = open_store(file, NO_LIMIT, "fsync")
        try:
            yield store
        finally:
            store.close()
    except sqlite3.Error as error:
        raise as_spool_error(file, error) from error
    finally:
        claim.release()


def _claimed(file: Path) -> FileClaim:
    """Have a spool to oneself that is there.

    Raises:
        SpoolError: it is not, is none of Shield's, or a process uses it.
    """
    with suppress(DamagedError):
        recognise(file)
    return FileClaim(file)


def _delete(store: Store, gone: dict[int, set[int]]) -> None:
    before = store.delivered()
    sizes = {stored.id: stored.chunk.messages for stored in store.all() if stored.id in gone}
    changes: dict[int, list[int] | None] = {}
    for chunk, places in gone.items():
        all_gone = places | before.get(chunk, set())
        changes[chunk] = None if len(all_gone) >= sizes[chunk] else sorted(all_gone)
    store.write(delivered=changes)
    store.shrink()


class SpoolFile(Transport):
    """`spool:///path` as a source: what a process that is gone has left. Nothing is sent to it."""

    scheme = "spool"

    def send(self, envelope: Envelope, done: Done) -> None:
        """Refuse: the action `spool` writes, and nothing else."""
        done(ShieldError("a spool is written by the action `spool` alone"))

    def close(self, timeout_s: float) -> None:
        """Do nothing."""

    @classmethod
    def source(cls, url: URL) -> Source:
        """Return the messages of a file; those that are parked are left out.

        Raises:
            SpoolError: a process uses it, or it cannot be opened.
        """
        return OfflineSource(_path_of(url))

    @classmethod
    def look(cls, url: URL) -> Source:
        """Return the same messages, from a file that does not change and is not claimed.

        Raises:
            SpoolError: it cannot be read.
        """
        return OfflineSnapshot(_path_of(url))


def _path_of(url: URL) -> Path:
    return Path(unquote(f"/{url.path.lstrip('/')}"))


class OfflineSnapshot(Source):
    """The messages of a file as it is now, the oldest first, without those that are parked."""

    diverted = False
    believed = True

    def __init__(self, file: Path) -> None:
        found = overview_of(file)
        if found.problem is not None:
            raise SpoolError(found.problem)
        self._left = found.messages - found.parked
        self._entries = (entry for entry in entries_in(file) if not entry.is_parked)

    def take(self, most: int, timeout_s: float) -> Sequence[Taken]:
        """Return the next ones."""
        taken = [Taken(entry.whole(), entry.position) for entry in islice(self._entries, most)]
        self._left = self._left - len(taken) if taken else 0
        return taken

    def left(self) -> int:
        """Return how many have not been taken."""
        return max(0, self._left)

    def forget(self, taken: Taken) -> None:
        """Do nothing: it is left as it is."""

    def close(self) -> None:
        """Close the file."""
        self._entries.close()


class OfflineSource(Source):
    """All messages of a file that no process uses, the oldest first."""

    diverted = False
    believed = True

    def __init__(self, file: Path) -> None:
        self._file = file
        self._claim = _claimed(file)
        try:
            self._store = open_store(file, NO_LIMIT, "fsync")
        except BaseException:
            self._claim.release()
            raise
        self._left = sum(not entry.is_parked for entry in entries_in(file))
        self._deliveries = Progress(self._store.failures())
        self._source = SpoolSource(
            self._store, None, self._deliveries, lambda: self._store.last, lambda: None
        )

    def take(self, most: int, timeout_s: float) -> Sequence[Taken]:
        """Return the next ones, and write down what was delivered meanwhile."""
        self._record()
        taken = self._source.take(most, timeout_s)
        self._left -= len(taken)
        return taken

    def forget(self, taken: Taken) -> None:
        """Let it be deleted."""
        self._source.forget(taken)

    def failed(self, taken: Taken) -> None:
        """Let it come again."""
        self._left += 1
        self._source.failed(taken)

    def left(self) -> int:
        """Return how many have not been taken."""
        return max(0, self._left)

    def _record(self) -> None:
        changes = self._deliveries.changes()
        if changes[0] or changes[1]:
            try:
                self._store.write((), *changes)
            except sqlite3.Error as error:
                self._deliveries.give_back(changes)
                raise as_spool_error(self._file, error) from error
            self._deliveries.recorded(changes)

    def close(self) -> None:
        """Write down what was delivered, and close the file."""
        try:
            self._record()
        finally:
            self._store.close()
            self._claim.release()
