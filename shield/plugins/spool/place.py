"""Where spools are on disk: one file for each process name and rule, and who has it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from urllib.parse import quote, unquote

from shield.plugins.spool.errors import SpoolError

SUFFIX = ".spool"
LOCK_SUFFIX = ".lock"
LONGEST_NAME = 200
FILE_MODE = 0o600
FOLDER_MODE = 0o700


def file_for(folder: Path, producer: str, rule: str) -> Path:
    """Return the file of one process name and rule: `checkout-api+orders.spool`.

    Characters that file systems or shells treat specially are written as `%XX`; of names that
    are too long for a file, the end is replaced by a hash.
    """
    name = "+".join(quote(part, safe=" ") for part in (producer, rule))
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name[: LONGEST_NAME - 17]}-{digest}"
    return folder / f"{name.lstrip('.') or '_'}{SUFFIX}"


def names_of(file: Path) -> tuple[str, str]:
    """Return process name and rule of a file, as far as its name tells."""
    producer, _, rule = file.name.removesuffix(SUFFIX).partition("+")
    return unquote(producer), unquote(rule)


def files_in(folder: Path) -> list[Path]:
    """Return the spools of a folder, and those set aside as damaged."""
    if not folder.is_dir():
        return []
    names = (f for f in folder.iterdir() if SUFFIX in f.name and f.is_file())
    return sorted(f for f in names if f.name.endswith(SUFFIX) or ".damaged-" in f.suffix)


def make_folder(folder: Path) -> None:
    """Make the folder, for its user alone.

    Raises:
        SpoolError: it cannot be made.
    """
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise SpoolError(
            f"spool_dir {folder}: cannot be made ({error.strerror}); allowed is a folder that "
            "this process may write, as SHIELD_SPOOL_DIR or spool_dir in [shield] names it"
        ) from error


class Claim:
    """One process's hold on a spool's file. It ends with `release`, or with the process.

    A claim does not pass on to forked children: `forget` closes their copy, and the parent's stays.
    """

    def __init__(self, file: Path) -> None:
        """Take hold of the file, which need not exist.

        Raises:
            SpoolError: another process has it, or this one; or its lock cannot be made.
        """
        self._path = file.with_name(file.name + LOCK_SUFFIX)
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise SpoolError(f"spool {file}: cannot be opened ({error.strerror})") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            owner = self._owner()
            os.close(self._fd)
            raise SpoolError(
                f"spool {file}: process {owner} has it; one process may use a spool at a time, so "
                "give each a producer of its own (producer in [shield], or SHIELD_PRODUCER)"
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise SpoolError(f"spool {file}: cannot be locked ({error.strerror})") from error

    def _owner(self) -> str:
        return os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "another"

    def release(self) -> None:
        """Let others take the file."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)

    def forget(self) -> None:
        """Drop a forked child's copy."""
        os.close(self._fd)


def user_of(file: Path) -> int | None:
    """Return the id of the process that has the file open as its spool; None for nobody."""
    try:
        fd = os.open(file.with_name(file.name + LOCK_SUFFIX), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdecimal() else 0
    else:
        return None
    finally:
        os.close(fd)
