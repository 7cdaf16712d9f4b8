"""A damaged spool: set aside under another name, and what can be read of it is kept."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from shield.plugins.actions.spool.errors import DamagedError, SpoolError
from shield.plugins.actions.spool.storage.chunks import Chunk, labels_in
from shield.plugins.actions.spool.storage.recognition import JOURNALS, beside, prepare
from shield.plugins.actions.spool.storage.store import SELECT, Failure, Position, Store, places_in

log = logging.getLogger("shield.spool")
VERIFY_BYTES = 256 * 2**20
"""A file up to this size is read whole when it is opened; of a larger one, what is damaged is found
when it is its turn."""


def open_store(file: Path, limit: int, durability: str) -> Store:
    """Open a spool's file; one that is damaged is set aside, and the rest of it recovered.

    A file that is not very large is read once: what is left of an earlier process is sound when
    this returns.

    Raises:
        SpoolError: it cannot be opened.
    """
    try:
        store = Store(file, limit, durability)
    except DamagedError as error:
        return _recovered(file, limit, durability, error)
    if file.stat().st_size > VERIFY_BYTES:
        return store
    try:
        _verify(store)
    except DamagedError as error:
        store.close()
        return _recovered(file, limit, durability, error)
    return store


def _verify(store: Store) -> None:
    try:
        for stored in store.all():
            if not stored.chunk.is_sound:
                raise DamagedError(f"spool {store.file}: chunk {stored.id} is damaged")
        store.delivered()
        store.failures()
        list(store.labels())
    except (sqlite3.Error, ValueError) as error:
        raise DamagedError(f"spool {store.file}: is damaged ({error})") from error


def _recovered(file: Path, limit: int, durability: str, cause: DamagedError) -> Store:
    """Begin a new file with what the damaged one still tells."""
    aside = _set_aside(file)
    store = Store(file, limit, durability)
    messages = 0
    for number, chunk, places, failures in _readable(aside):
        store.last = number - 1
        positions = {Position(number, place): failure for place, failure in failures.items()}
        try:
            store.write([chunk], {number: sorted(places)} if places else {}, positions)
        except sqlite3.Error as error:
            log.error("spool %s: not all that was readable fits: %s", file, error)
            break
        messages += chunk.messages - len(places)
    log.error(
        "%s; it was set aside as %s, and %d messages of it were recovered", cause, aside, messages
    )
    return store


def _set_aside(file: Path) -> Path:
    """Rename a file and its journals; return the new name."""
    stamp = time.strftime("%Y%m%dT%H%M%S")
    aside = file.with_name(f"{file.name}.damaged-{stamp}-{time.time_ns() % 10**9:09}")
    try:
        for journal in JOURNALS:
            if os.path.lexists(beside(file, journal)):
                beside(file, journal).rename(beside(aside, journal))
        return file.rename(aside)
    except OSError as error:
        raise SpoolError(
            f"spool {file}: is damaged, and cannot be set aside ({error.strerror})"
        ) from error


Readable = tuple[int, Chunk, set[int], dict[int, Failure]]


def _readable(file: Path) -> Iterator[Readable]:
    """Return each sound chunk of a damaged file, with what is known of its messages."""
    connection = sqlite3.connect(file, isolation_level=None)
    prepare(connection)
    try:
        connection.execute("PRAGMA writable_schema = ON")  # read on where the file's end is cut off
        for number in sorted(_numbers(connection)):
            chunk = _chunk(connection, number)
            if chunk is not None:
                yield number, chunk, _places(connection, number), _failures(connection, number)
    except sqlite3.Error:
        return
    finally:
        connection.close()


def _numbers(connection: sqlite3.Connection) -> set[int]:
    """Look for chunks from both ends: between them are the pages that cannot be read."""
    found: set[int] = set()
    for order in ("ASC", "DESC"):
        try:
            for (number,) in connection.execute(
                f"SELECT id FROM chunks NOT INDEXED ORDER BY id {order}"
            ):
                found.add(number)
        except sqlite3.Error:
            continue
    return found


def _chunk(connection: sqlite3.Connection, number: int) -> Chunk | None:
    try:
        row = connection.execute(f"{SELECT} NOT INDEXED WHERE id = ?", (number,)).fetchone()
        chunk = Chunk(*row[2:])
        labels_in(chunk)
        return chunk if chunk.is_sound else None
    except (sqlite3.Error, TypeError, ValueError, AttributeError):
        return None


def _places(connection: sqlite3.Connection, number: int) -> set[int]:
    try:
        row = connection.execute(
            "SELECT places FROM delivered WHERE chunk = ?", (number,)
        ).fetchone()
        return set() if row is None else places_in(row[0])
    except sqlite3.Error:
        return set()


def _failures(connection: sqlite3.Connection, number: int) -> dict[int, Failure]:
    try:
        rows = connection.execute(
            "SELECT place, times, error, parked FROM failures WHERE chunk = ?", (number,)
        ).fetchall()
        return {place: Failure(times, error, bool(parked)) for place, times, error, parked in rows}
    except (sqlite3.Error, ValueError, TypeError):
        return {}
