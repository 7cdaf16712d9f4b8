"""The file of one spool: SQLite in WAL mode. Nothing here waits, or knows of threads."""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from shield.plugins.actions.spool.errors import DamagedError, SpoolError
from shield.plugins.actions.spool.storage.chunks import Chunk, labels_in
from shield.plugins.actions.spool.storage.recognition import (
    is_there,
    prepare,
    recognise,
    said_of_spools,
)
from shield.plugins.actions.spool.storage.schema import PAGE_BYTES, empty_file
from shield.safe_files import open_file, sync_folder, write_all

LARGEST_NUMBER = 2**62
ROW_BYTES = 100
"""What a chunk costs in the file beside its data, about."""
JOURNAL_BYTES = 4 * 2**20
"""How far the journal grows beside the file before it is written back; a quarter of a small one.

So much of the disk is left free, too: a journal that had filled it could never be written back.
"""
INSERT = (
    "INSERT INTO chunks (id, origin, at_ms, messages, size, crc, heads, payload)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
SELECT = "SELECT id, at_ms, origin, messages, size, crc, heads, payload FROM chunks"


TOUCHED = "SELECT chunk FROM delivered UNION SELECT chunk FROM failures"


class Position(NamedTuple):
    """Where a message is: its chunk, and its place in it. Older ones sort first."""

    chunk: int
    place: int


class Failure(NamedTuple):
    """How often a message could not be delivered, and whether it is tried no more."""

    times: int
    error: str
    parked: bool


class StoredChunk(NamedTuple):
    """A chunk as it is in the file."""

    id: int
    at_ms: int
    chunk: Chunk


class Store:
    """One open file. Writing is for one thread; `read` may go on beside it, on another.

    Args:
        file: made where it is not there, for its user alone.
        limit: bytes that the file may have; what does not fit raises `sqlite3.OperationalError`.
        durability: `fsync` for each commit to be on the disk itself, `os` for the system's cache.

    Raises:
        SpoolError: it cannot be opened, is no spool of Shield's and this user's, or of a later
            version.
        DamagedError: it is one, and is damaged.
    """

    def __init__(self, file: Path, limit: int, durability: str) -> None:
        self.file = file
        self.size = 0
        """Bytes that the messages take up."""
        self.last = 0
        """The newest chunk."""
        if is_there(file):
            recognise(file)
        else:
            make_file(file, fsync=durability == "fsync")
        self._writing, self._reading = _connect(file), _connect(file)
        try:
            self._prepare(limit, durability)
        except sqlite3.Error as error:
            self.close()
            raise as_spool_error(file, error) from error
        except SpoolError:
            self.close()
            raise

    def _prepare(self, limit: int, durability: str) -> None:
        writing = self._writing
        self._reserve = journal = min(JOURNAL_BYTES, limit // 4)
        synchronous = "FULL" if durability == "fsync" else "NORMAL"
        for pragma in (
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            f"max_page_count = {max(8, limit // PAGE_BYTES)}",
            f"wal_autocheckpoint = {max(1, journal // PAGE_BYTES)}",
            f"journal_size_limit = {journal}",
        ):
            writing.execute(f"PRAGMA {pragma}")
        with suppress(sqlite3.OperationalError):  # a full disk can still be read
            self._write_back()
        self.size = self._one("SELECT coalesce(sum(size + ?), 0) FROM chunks", ROW_BYTES)
        self.last = self._one("SELECT coalesce(max(id), 0) FROM chunks")
        if self.last > LARGEST_NUMBER:
            raise DamagedError(f"spool {self.file}: is damaged (there is no chunk {self.last})")

    def _one(self, query: str, *values: object) -> int:
        return int(self._writing.execute(query, values).fetchone()[0])

    # --- writing ------------------------------------------------------------------------------

    def write(
        self,
        chunks: Iterable[Chunk] = (),
        delivered: Mapping[int, Sequence[int] | None] | None = None,
        failures: Mapping[Position, Failure] | None = None,
    ) -> None:
        """Do all this in one commit, or nothing of it.

        Args:
            chunks: new messages.
            delivered: which places of a chunk need not come again, or None for all of them.
            failures: what is new about messages that could not be delivered.

        Raises:
            OSError, sqlite3.Error: nothing was done: the disk is full, or the file is.
        """
        chunks = list(chunks)
        rows = [
            (self.last + n, c.origin, _now_ms(), c.messages, c.size, c.crc, c.heads, c.payload)
            for n, c in enumerate(chunks, 1)
        ]
        if rows:
            self._look_for_room(sum(row[4] for row in rows))
        labels = [
            (self.last + n, *label, messages)
            for n, chunk in enumerate(chunks, 1)
            for label, messages in (chunk.labels or Counter(labels_in(chunk))).items()
        ]
        changes = rows, labels, delivered or {}, failures or {}
        try:
            freed = self._commit(*changes)
        except sqlite3.OperationalError:
            self._write_back()  # a full disk may be full of journal
            freed = self._commit(*changes)
        self.size += sum(row[4] + ROW_BYTES for row in rows) - freed
        self.last += len(rows)

    def _look_for_room(self, size: int) -> None:
        disk = os.statvfs(self.file.parent)
        if disk.f_bavail * disk.f_frsize < self._reserve + 2 * size:
            raise OSError(errno.ENOSPC, f"spool {self.file}: the disk is full")

    def _commit(
        self,
        rows: Sequence[Sequence[object]],
        labels: Sequence[Sequence[object]],
        delivered: Mapping[int, Sequence[int] | None],
        failures: Mapping[Position, Failure],
    ) -> int:
        """Do all or nothing; return the bytes that this frees."""
        execute = self._writing.execute
        execute("BEGIN IMMEDIATE")
        try:
            self._writing.executemany(INSERT, rows)
            self._writing.executemany("INSERT INTO labels VALUES (?, ?, ?, ?)", labels)
            freed = sum([self._note(chunk, places) for chunk, places in delivered.items()])
            for position, failure in failures.items():
                execute(
                    "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", (*position, *failure)
                )
            execute("COMMIT")
        except BaseException:
            if self._writing.in_transaction:
                execute("ROLLBACK")
            raise
        return freed

    def _write_back(self) -> None:
        """Move what the journal holds into the file, and cut the journal."""
        self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _note(self, chunk: int, places: Sequence[int] | None) -> int:
        """Record deliveries; return the bytes that this frees."""
        execute = self._writing.execute
        if places is not None:
            text = json.dumps(places)
            execute("INSERT OR REPLACE INTO delivered VALUES (?, ?)", (chunk, text))
            return 0
        found = execute("SELECT size FROM chunks WHERE id = ?", (chunk,)).fetchone()
        execute("DELETE FROM chunks WHERE id = ?", (chunk,))
        for table in ("labels", "delivered", "failures"):
            execute(f"DELETE FROM {table} WHERE chunk = ?", (chunk,))
        return 0 if found is None else int(found[0]) + ROW_BYTES

    def shrink(self) -> None:
        """Give the disk back what an empty file does not need."""
        self._writing.execute("PRAGMA incremental_vacuum").fetchall()
        self._write_back()

    # --- reading --------------------------------------------------------------------------------

    def read(self, origin: str | None, after: int, up_to: int, most: int) -> list[StoredChunk]:
        """Return the next chunks of a broker, or of all, behind one; the oldest first."""
        whose = "TRUE" if origin is None else "origin = ?"
        found = self._reading.execute(
            f"{SELECT} WHERE {whose} AND id > ? AND id <= ? ORDER BY id LIMIT ?",
            (*([] if origin is None else [origin]), after, up_to, most),
        )
        return [_stored(row) for row in found]

    def all(self) -> Iterator[StoredChunk]:
        """Return every chunk, the oldest first."""
        return chunks_in(self._reading)

    def behind(self, number: int) -> int:
        """Return the number of the chunk that follows, also where it cannot be read."""
        found = self._reading.execute(
            "SELECT min(id) FROM chunks INDEXED BY chunks_by_origin WHERE id > ?", (number,)
        )
        return int(found.fetchone()[0] or self.last)

    def chunk(self, number: int) -> StoredChunk:
        """Return one chunk.

        Raises:
            LookupError: it is not there.
        """
        for row in self._reading.execute(f"{SELECT} WHERE id = ?", (number,)):
            return _stored(row)
        raise LookupError(number)

    def labels(self) -> Iterator[tuple[str, str, int]]:
        """Return how many messages of each destination and producer the untouched chunks hold.

        Untouched are those of which none was delivered, and none failed: see `touched`.
        """
        return iter(
            self._reading.execute(
                "SELECT destination, producer, sum(messages) FROM labels WHERE chunk NOT IN "
                f"({TOUCHED}) GROUP BY destination, producer"
            )
        )

    def touched(self) -> list[int]:
        """Return the chunks of which some messages were delivered, or have failed."""
        return [number for (number,) in self._reading.execute(TOUCHED)]

    def delivered(self) -> dict[int, set[int]]:
        """Return which places of chunks that are still here need not come again."""
        return delivered_in(self._reading)

    def failures(self) -> dict[Position, Failure]:
        """Return what is known of messages that could not be delivered."""
        return failures_in(self._reading)

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; the journal is written back."""
        self._reading.close()
        self._writing.close()


def chunks_in(connection: sqlite3.Connection) -> Iterator[StoredChunk]:
    """Return every chunk, the oldest first."""
    return map(_stored, connection.execute(f"{SELECT} ORDER BY id"))


def delivered_in(connection: sqlite3.Connection) -> dict[int, set[int]]:
    """Return by chunk which places in it need not come again."""
    rows = connection.execute("SELECT chunk, places FROM delivered")
    return {chunk: places_in(places) for chunk, places in rows}


def places_in(text: object) -> set[int]:
    """Return the places that are written down; none where that cannot be read."""
    try:
        return {place for place in json.loads(str(text)) if type(place) is int}
    except (ValueError, TypeError, RecursionError):
        return set()


def failures_in(connection: sqlite3.Connection) -> dict[Position, Failure]:
    """Return what is known of messages that could not be delivered."""
    rows = connection.execute("SELECT chunk, place, times, error, parked FROM failures")
    return {
        Position(chunk, place): Failure(times, str(error), bool(parked))
        for chunk, place, times, error, parked in rows
        if {type(chunk), type(place), type(times)} == {int}
    }


def make_file(file: Path, fsync: bool) -> None:
    """Begin a spool: under another name, so that a crash leaves no part of one under its own.

    Raises:
        SpoolError: it cannot be made.
    """
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with said_of_spools(file):
        opened = open_file(draft, os.O_WRONLY | os.O_CREAT, private=True)
        try:
            write_all(opened, empty_file())
            if fsync:
                os.fsync(opened)
            os.rename(draft, file)
            if fsync:
                sync_folder(file.parent)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(opened)


def as_spool_error(file: Path, error: sqlite3.Error) -> SpoolError:
    """Return what SQLite says as an error of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedError(f"spool {file}: is damaged ({error})")
    return SpoolError(f"spool {file}: {error}")


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    prepare(connection)
    return connection


def _stored(row: tuple[int, int, str, int, int, int, str, bytes]) -> StoredChunk:
    return StoredChunk(row[0], row[1] if type(row[1]) is int else 0, Chunk(*row[2:]))


def _now_ms() -> int:
    return int(time.time() * 1000)
