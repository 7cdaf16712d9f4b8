"""What a spool's file looks like inside, and an empty one to begin with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache

APPLICATION = 0x5348_5350  # "SHSP"
VERSION = 1
"""The schema that this module writes; a file with a later one is left alone."""
PAGE_BYTES = 4096
MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
WAL = 2
"""The file format's number for "in WAL mode", in the bytes 18 and 19."""

# What opening a file of any size needs to know is in the index, and in `labels`: without the rest.
SCHEMA = f"""
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    size INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    heads TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX chunks_by_origin ON chunks (origin, id, at_ms, messages, size);
CREATE TABLE labels (
    chunk INTEGER NOT NULL,
    destination TEXT NOT NULL,
    producer TEXT NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (chunk, destination, producer)
) WITHOUT ROWID;
CREATE TABLE delivered (chunk INTEGER PRIMARY KEY, places TEXT NOT NULL);
CREATE TABLE failures (
    chunk INTEGER NOT NULL,
    place INTEGER NOT NULL,
    times INTEGER NOT NULL,
    error TEXT NOT NULL,
    parked INTEGER NOT NULL,
    PRIMARY KEY (chunk, place)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
TABLES = "SELECT type, name, sql FROM sqlite_master"


def empty_file() -> bytes:
    """Return what a spool without messages consists of.

    It is made in memory, so that a file never has that name before it can be recognised.
    """
    with closing(_empty()) as made:
        image = made.serialize()
    return b"%b%c%c%b" % (image[:18], WAL, WAL, image[20:])


@cache
def tables() -> frozenset[tuple[str, str, str]]:
    """Return type, name and definition of all that is in a spool's database."""
    with closing(_empty()) as made:
        return frozenset(made.execute(TABLES))


def _empty() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    made.execute("PRAGMA auto_vacuum = INCREMENTAL")
    made.executescript(SCHEMA)
    return made
