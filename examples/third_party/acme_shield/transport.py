"""`sqlite:///path/to/box.db`: messages in a database file, to send to and to redrive from."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from urllib.parse import unquote

import shield
from shield.redriving.read_ahead import ReadAheadSource
from shield.transport import Done

COLUMNS = (
    "destination, body, kind, key, headers, routing_key, timestamp_ms, partition, native,"
    " mandatory, producer, marks"
)
"""The fields of an Envelope, in its order; SQLite has text, numbers and bytes as they are."""
FORM = "sqlite:///path/to/box.db"


class SqliteTransport(shield.Transport):
    """Appends messages to one file.

    A message that is answered has been committed: it survives the end of this process, and, as
    SQLite's write-ahead log is set here, not always a loss of power.
    """

    scheme = "sqlite"
    form = FORM

    def __init__(self, path: Path) -> None:
        self.origin = f"sqlite://{path}"
        self._path = path
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        self._closed = False

    @classmethod
    def to(cls, url: shield.URL) -> SqliteTransport:
        """Return one for a URL; the file is made when the first message comes."""
        return cls(_path(url))

    @classmethod
    def source(cls, url: shield.URL) -> SqliteSource:
        """Return what reads a file back, and removes from it what is forgotten."""
        return SqliteSource(_path(url))

    def send(self, envelope: shield.Envelope, done: Done) -> None:
        """Commit one row; any thread may."""
        try:
            with self._lock:
                self._insert(envelope)
        except (sqlite3.Error, shield.ShieldError) as error:
            done(error)
        else:
            done(None)

    def close(self, timeout_s: float) -> None:
        """Close the file: every send has ended before it returned."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _insert(self, envelope: shield.Envelope) -> None:
        if self._closed:
            raise shield.ShieldError(f"{self.origin} is closed")
        self._opened = self._opened or _open(self._path)
        marks = ", ".join("?" * len(COLUMNS.split(",")))
        with self._opened:  # one transaction
            self._opened.execute(
                f"INSERT INTO messages ({COLUMNS}) VALUES ({marks})", _row(envelope)
            )


class SqliteSource(ReadAheadSource):
    """Reads all rows ahead when it is opened; a row is deleted when its message is forgotten.

    `ReadAheadSource` keeps the order, and brings back what has failed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._lock = threading.Lock()
        self._database = _open(path)
        rows = self._database.execute(f"SELECT number, {COLUMNS} FROM messages ORDER BY number")
        for number, *row in rows:
            self.in_turn.put("messages", number, number + 1, _envelope(*row))

    def forget(self, taken: shield.Taken) -> None:
        """Delete its row; answers to redriven messages come on any thread."""
        super().forget(taken)
        with self._lock, self._database as transaction:
            transaction.execute("DELETE FROM messages WHERE number = ?", (taken.position.begins,))

    def left(self) -> int:
        """Return how many have not been taken."""
        return self.in_turn.untaken

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _path(url: shield.URL) -> Path:
    if url.hosts or not url.path.strip("/"):
        raise ValueError(f"{url} names no file; allowed is {FORM}")
    return Path(unquote(url.path))


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(
        f"CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY AUTOINCREMENT, {COLUMNS})"
    )
    return database


def _row(envelope: shield.Envelope) -> tuple[object, ...]:
    headers = [(name, None if value is None else value.hex()) for name, value in envelope.headers]
    return (
        envelope.destination,
        envelope.body,
        envelope.kind,
        envelope.key,
        json.dumps(headers),
        envelope.routing_key,
        envelope.timestamp_ms,
        envelope.partition,
        envelope.native,
        envelope.mandatory,
        envelope.producer,
        json.dumps(envelope.marks),
    )


def _envelope(*row: object) -> shield.Envelope:
    values = dict(zip(COLUMNS.replace(" ", "").split(","), row, strict=True))
    headers = [
        (name, None if value is None else bytes.fromhex(value))
        for name, value in json.loads(values["headers"])
    ]
    marks = [(name, text) for name, text in json.loads(values["marks"])]
    values |= {"headers": tuple(headers), "marks": tuple(marks)}
    return shield.Envelope(**values | {"mandatory": bool(values["mandatory"])})
