"""A look into a spool's file, also while its process is at work: nothing is locked or changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shield import Envelope
from shield.plugins.spool.errors import SpoolError
from shield.plugins.spool.place import names_of, user_of
from shield.plugins.spool.rows import envelopes_in
from shield.plugins.spool.store import (
    APPLICATION,
    VERSION,
    Failure,
    Position,
    as_spool_error,
    chunks_in,
    delivered_in,
    failures_in,
)


@dataclass(frozen=True)
class Entry:
    """One message in a spool."""

    position: Position
    at_ms: int
    origin: str
    envelope: Envelope
    failure: Failure | None

    @property
    def number(self) -> str:
        """What commands call it: its chunk, and its place in it."""
        return f"{self.position.chunk}.{self.position.place}"

    @property
    def is_parked(self) -> bool:
        """Whether it is not tried any more."""
        return self.failure is not None and self.failure.parked


@dataclass(frozen=True)
class Overview:
    """One line of `shield spool ls`."""

    file: str
    producer: str
    rule: str
    messages: int
    parked: int
    bytes: int
    oldest: str | None
    used_by: int | None
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def entries_in(file: Path) -> Iterator[Entry]:
    """Return the messages of a spool as they are now, the oldest first.

    Raises:
        SpoolError: it cannot be read.
    """
    try:
        with closing(_connect(file)) as connection:
            connection.execute("BEGIN")  # one moment for all that is read
            delivered, failures = delivered_in(connection), failures_in(connection)
            for stored in chunks_in(connection):
                done = delivered.get(stored.id, set())
                for place, envelope in enumerate(envelopes_in(stored.chunk)):
                    position = Position(stored.id, place)
                    if place not in done:
                        failure = failures.get(position)
                        origin = stored.chunk.origin
                        yield Entry(position, stored.at_ms, origin, envelope, failure)
    except sqlite3.Error as error:
        raise as_spool_error(file, error) from error
    except ValueError as error:
        raise SpoolError(f"spool {file}: is damaged ({error})") from error


def overview_of(file: Path) -> Overview:
    """Return how much is in a spool, without reading the messages; or what is wrong with it."""
    producer, rule = names_of(file)
    try:
        with closing(_connect(file)) as connection:
            row = connection.execute(
                "SELECT coalesce(sum(messages), 0), coalesce(sum(size), 0), min(at_ms) FROM chunks"
            ).fetchone()
            done = sum(map(len, delivered_in(connection).values()))
            parked = sum(failure.parked for failure in failures_in(connection).values())
    except (sqlite3.Error, SpoolError) as error:
        problem = str(as_spool_error(file, error) if isinstance(error, sqlite3.Error) else error)
        return Overview(str(file), producer, rule, 0, 0, 0, None, user_of(file), problem)
    oldest = None if row[2] is None else moment(row[2])
    messages = row[0] - done
    return Overview(str(file), producer, rule, messages, parked, row[1], oldest, user_of(file))


def moment(at_ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _connect(file: Path) -> sqlite3.Connection:
    """Open a file to read.

    Raises:
        SpoolError: it is not there, or no spool that this version knows.
    """
    if not file.is_file():
        raise SpoolError(f"spool {file}: there is no such file")
    connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, isolation_level=None)
    try:
        _check(file, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(file: Path, connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise SpoolError(f"spool {file}: is no spool of Shield")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise SpoolError(
            f"spool {file}: was written by a later version of Shield (its schema is {version}, "
            f"this one knows {VERSION})"
        )
