"""A look into a spool's file, also while its process is at work: nothing is locked or changed."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shield import Envelope
from shield.plugins.actions.spool.errors import SpoolError
from shield.plugins.actions.spool.storage.chunks import envelopes_in
from shield.plugins.actions.spool.storage.location import names_of, user_of
from shield.plugins.actions.spool.storage.recognition import beside, connect_to_look, recognise
from shield.plugins.actions.spool.storage.store import (
    Failure,
    Position,
    StoredChunk,
    as_spool_error,
    chunks_in,
    delivered_in,
    failures_in,
)

log = logging.getLogger("shield.spool")
LATEST_MS = 253_402_300_799_000
"""The end of the year 9999."""


@dataclass(frozen=True)
class SpooledMessage:
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

    def whole(self) -> Envelope:
        """Return the message with a mark that names its broker."""
        return self.envelope.of_broker(self.origin) if self.origin else self.envelope

    @property
    def is_parked(self) -> bool:
        """Whether it is not tried any more."""
        return self.failure is not None and self.failure.parked


@dataclass(frozen=True)
class SpoolOverview:
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


def entries_in(file: Path) -> Iterator[SpooledMessage]:
    """Return the messages of a spool as they are now, the oldest first.

    Raises:
        SpoolError: it cannot be read.
    """
    with _looking(file) as connection:
        delivered, failures = delivered_in(connection), failures_in(connection)
        for stored in chunks_in(connection):
            done = delivered.get(stored.id, set())
            for place, envelope in enumerate(_envelopes(file, stored)):
                position = Position(stored.id, place)
                if place not in done:
                    failure = failures.get(position)
                    yield SpooledMessage(
                        position, stored.at_ms, stored.chunk.origin, envelope, failure
                    )


def _envelopes(file: Path, stored: StoredChunk) -> list[Envelope]:
    """Return the messages of a chunk; none of one that is damaged."""
    try:
        return envelopes_in(stored.chunk)
    except ValueError as error:
        log.error("spool %s: chunk %d cannot be read: %s", file, stored.id, error)
        return []


def overview_of(file: Path) -> SpoolOverview:
    """Return how much is in a spool, without reading the messages; or what is wrong with it."""
    producer, rule = names_of(file)
    try:
        used_by = user_of(file)
        with _looking(file) as connection:
            row = connection.execute(
                "SELECT coalesce(sum(messages), 0), coalesce(sum(size), 0), min(at_ms) FROM chunks"
            ).fetchone()
            done = sum(map(len, delivered_in(connection).values()))
            parked = sum(failure.parked for failure in failures_in(connection).values())
    except SpoolError as error:
        return SpoolOverview(str(file), producer, rule, 0, 0, 0, None, None, str(error))
    oldest = None if row[2] is None else moment(row[2])
    messages, size = int(row[0]) - done, int(row[1])
    return SpoolOverview(str(file), producer, rule, messages, parked, size, oldest, used_by)


def moment(at_ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339; what is beyond all years as the nearest."""
    at_s = min(max(at_ms, 0), LATEST_MS) / 1000
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


@contextmanager
def _looking(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a spool to read, so that neither it nor what lies beside it changes.

    Where no process uses it and no journal is left, there is nothing but the file, which is read
    without any lock; else by the locks of its journal, as the process that uses it does.

    Raises:
        SpoolError: it is not there, cannot be read, or is no spool that this version knows.
    """
    recognise(file)
    alone = user_of(file) is None and not _is_journaled(file)
    before = os.stat(file)
    try:
        with closing(connect_to_look(file, immutable=alone)) as connection:
            connection.execute("BEGIN")  # one moment for all that is read
            yield connection
    except sqlite3.Error as error:
        raise as_spool_error(file, error) from error
    if alone and _is_changed(before, os.stat(file)):
        raise SpoolError(f"spool {file}: a process began to use it meanwhile; look again")


def _is_journaled(file: Path) -> bool:
    try:
        return os.stat(beside(file, "-wal")).st_size > 0
    except FileNotFoundError:
        return False


def _is_changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_ino, before.st_size, before.st_mtime_ns) != (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    )
