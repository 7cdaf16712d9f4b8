"""What may lie in a folder under a name that Shield uses, and was never Shield's."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

SECRET = b"root:x:0:0:root:/root:/bin/bash\n"


def _database(path: Path, application: int = 0) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.execute("INSERT INTO theirs VALUES ('dear')")
    connection.execute(f"PRAGMA application_id = {application}")
    connection.commit()
    connection.close()


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


def _hard_link(path: Path) -> None:
    other = path.with_name("victim")
    other.write_bytes(SECRET)
    other.chmod(0o600)
    os.link(other, path)


def _link(path: Path) -> None:
    other = path.with_name("victim")
    other.write_bytes(SECRET)
    path.symlink_to(other)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("Dear diary,\nnothing much.\n"),
    "random bytes": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "zeros": lambda path: path.write_bytes(bytes(100_000)),
    "json": lambda path: path.write_text('{\n  "v": 1\n}\n'),
    "json lines": lambda path: path.write_text('{"id": 1}\n{"id": 2}\n'),
    "sqlite header alone": lambda path: path.write_bytes(b"SQLite format 3\0"),
    "another database": _database,
    "another database that says it is a spool": lambda path: _database(path, 0x5348_5350),
    "zip": _zip,
    "symlink": _link,
    "hard link": _hard_link,
    "dangling symlink": lambda path: path.symlink_to(path.with_name("nowhere")),
    "folder": os.mkdir,
    "FIFO": os.mkfifo,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
}
"""Makes each, by its name."""


def make(what: str, path: Path) -> None:
    """Make it, open to its owner alone, so that nothing but what it is speaks against it."""
    FOREIGN[what](path)
    if not path.is_symlink():
        path.chmod(0o700 if path.is_dir() else 0o600)


def look(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return all that is in a folder: names, kinds, modes, times of change, contents."""
    return {str(path.relative_to(folder)): _look(path) for path in folder.rglob("*")}


def _look(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(found.st_mode) else None
    changed = None if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns
    return found.st_ino, found.st_mode, found.st_nlink, changed, content
