"""Whether a file is a spool of Shield's and of this user: asked before anything is done to it."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from shield.plugins.actions.spool.errors import DamagedError, SpoolError
from shield.plugins.actions.spool.storage.schema import (
    APPLICATION,
    HEADER_BYTES,
    MAGIC,
    TABLES,
    VERSION,
    tables,
)
from shield.safe_files import UnsafeFileError, check_folder, open_file

JOURNALS = ("-wal", "-shm")
NOTHING_YET = bytes(4)
"""How what was not written to the disk before a power cut may begin."""
BEGINNINGS = {
    "-wal": {b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", NOTHING_YET},
    "-shm": {(3_007_000).to_bytes(4, sys.byteorder), NOTHING_YET},
}
"""By SQLite's file format: the magic of a write-ahead log, the version of its index."""
NO_JOURNAL = "-journal"
"""What SQLite would play back into the file; a spool's never has one."""


def recognise(file: Path) -> None:
    """Look at a file, at what lies beside it and at its folder; nothing is touched.

    Raises:
        DamagedError: it was a spool of Shield's, and cannot be read.
        SpoolError: it is none, is of a later version, or another user's; it is not to be touched.
    """
    with said_of_spools(file):
        check_folder(file.parent)
        _check_beside(file)
        opened = open_file(file, os.O_RDONLY, private=True)
        try:
            header = os.pread(opened, HEADER_BYTES, 0)
        finally:
            os.close(opened)
    _check_header(file, header)
    _check_tables(file)


@contextmanager
def said_of_spools(file: Path) -> Iterator[None]:
    """Turn what is wrong with files into errors of a spool's."""
    try:
        yield
    except FileNotFoundError:
        raise SpoolError(f"spool {file}: there is no such file") from None
    except OSError as error:
        raise SpoolError(f"spool {file}: cannot be opened ({error.strerror})") from error
    except UnsafeFileError as error:
        raise SpoolError(f"spool {error}") from error


def is_there(file: Path) -> bool:
    """Tell whether there is anything of a spool's name, or left beside it.

    Raises:
        SpoolError: the file is gone, and its journal is not.
    """
    if os.path.lexists(file):
        return True
    left = [name for end in (*JOURNALS, NO_JOURNAL) if os.path.lexists(name := beside(file, end))]
    if left:
        raise SpoolError(
            f"spool {file}: is not there, and {left[0]} is left of one; move that away, or bring "
            "the spool back"
        )
    return False


def beside(file: Path, end: str) -> Path:
    """Return the path of a journal."""
    return file.with_name(file.name + end)


def _check_beside(file: Path) -> None:
    for end in JOURNALS:
        if os.path.lexists(beside(file, end)):
            _check_journal(beside(file, end), BEGINNINGS[end])
    if os.path.lexists(beside(file, NO_JOURNAL)):
        raise UnsafeFileError(f"{beside(file, NO_JOURNAL)}: is none of Shield's; move it away")


def _check_journal(path: Path, beginnings: set[bytes]) -> None:
    """Refuse what SQLite would overwrite, and has not written."""
    opened = open_file(path, os.O_RDONLY, private=True)
    try:
        begins = os.pread(opened, len(NOTHING_YET), 0)
    finally:
        os.close(opened)
    if begins and begins not in beginnings:
        raise UnsafeFileError(f"{path}: is no journal of a spool; it was left as it is")


def _check_header(file: Path, header: bytes) -> None:
    ours = int.from_bytes(header[68:72], "big") == APPLICATION
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC) or not ours:
        what = "another program's database" if header.startswith(MAGIC) else "no spool of Shield"
        raise SpoolError(f"spool {file}: is {what}; it was left as it is")
    version = int.from_bytes(header[60:64], "big")
    if version > VERSION:
        raise SpoolError(
            f"spool {file}: was written by a later version of Shield (its schema is {version}, "
            f"this one knows {VERSION}); it is left alone"
        )


def _check_tables(file: Path) -> None:
    """Look at the schema in the file itself: it is there from the beginning, and never changes."""
    try:
        with closing(connect_to_look(file, immutable=True)) as connection:
            found = frozenset(connection.execute(TABLES))
    except sqlite3.Error as error:
        raise DamagedError(f"spool {file}: is damaged ({error})") from error
    if found != tables():
        raise SpoolError(f"spool {file}: its tables are not Shield's; it was left as it is")


def connect_to_look(file: Path, immutable: bool) -> sqlite3.Connection:
    """Connect without a lock or a change; `immutable` where nobody else has it open."""
    kind = "mode=ro&immutable=1" if immutable else "mode=ro"
    connection = sqlite3.connect(
        f"file:{quote(os.path.abspath(file))}?{kind}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    prepare(connection)
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Have nothing that stands in a file run, and no text in it stop the reading of the rest."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
