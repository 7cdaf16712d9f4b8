"""Where spools are on disk: one file for each process name and rule, and who has it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from shield.plugins.actions.spool.errors import DamagedError, SpoolError
from shield.plugins.actions.spool.storage.recognition import is_there, recognise, said_of_spools
from shield.safe_files import UnsafeFileError, open_file
from shield.safe_files import make_folder as make_safe_folder

SUFFIX = ".spool"
LOCK_SUFFIX = ".lock"
LONGEST_NAME = 200
LONGEST_OWNER = 20
ALLOWED_FOLDER = (
    "SHIELD_SPOOL_DIR, or spool_dir in [shield], names a folder that this process may make or has"
)


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
    """Return the spools of a folder, and those set aside as damaged.

    Raises:
        SpoolError: the folder cannot be read.
    """
    try:
        names = [f for f in folder.iterdir() if SUFFIX in f.name and not f.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SpoolError(f"spool_dir {folder}: cannot be read ({error.strerror})") from error
    return sorted(f for f in names if f.name.endswith(SUFFIX) or ".damaged-" in f.suffix)


def make_folder(folder: Path) -> None:
    """Make the folder, for its user alone; one that is there has to be this user's own.

    Raises:
        SpoolError: it cannot be made, or others may write there.
    """
    try:
        if folder.parts[:1] and folder.parts[0].startswith("~"):
            raise UnsafeFileError(f"{folder}: this user has no home folder")
        make_safe_folder(folder)
    except OSError as error:
        raise SpoolError(
            f"spool_dir {folder}: cannot be made ({error.strerror}); {ALLOWED_FOLDER}"
        ) from error
    except UnsafeFileError as error:
        raise SpoolError(f"spool_dir {error}; {ALLOWED_FOLDER}") from error


class FileClaim:
    """One process's hold on a spool's file. It ends with `release`, or with the process.

    A claim does not pass on to forked children: `forget` closes their copy, and the parent's stays.
    """

    def __init__(self, file: Path) -> None:
        """Take hold of the file, which need not exist.

        Raises:
            SpoolError: another process has it, or this one; it is no spool of Shield's; or its
                lock cannot be made.
        """
        if is_there(file):
            with suppress(DamagedError):
                recognise(file)
        self._path = lock_of(file)
        self._fd = _opened(self._path, os.O_RDWR | os.O_CREAT)
        try:
            owner = self._owner()
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            os.close(self._fd)
            raise SpoolError(
                f"spool {file}: process {owner} has it; one process may use a spool at a time, so "
                "give each a producer of its own (producer in [shield], or SHIELD_PRODUCER)"
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise SpoolError(f"spool {file}: cannot be locked ({error.strerror})") from error
        except SpoolError:
            os.close(self._fd)
            raise

    def _owner(self) -> str:
        """Return whose it is or was; a file with anything else in it is no lock of Shield's."""
        text = os.pread(self._fd, LONGEST_OWNER + 1, 0)
        owner = text.strip(b"\0\n")  # a power cut may leave zeros
        if (owner and not owner.isdigit()) or len(text) > LONGEST_OWNER:
            raise SpoolError(f"{self._path}: is no lock of Shield's; it was left as it is")
        return owner.decode() or "another"

    def release(self) -> None:
        """Let others take the file."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)

    def forget(self) -> None:
        """Drop a forked child's copy."""
        os.close(self._fd)


def lock_of(file: Path) -> Path:
    """Return the path of a spool's lock."""
    return file.with_name(file.name + LOCK_SUFFIX)


def _opened(path: Path, flags: int) -> int:
    with said_of_spools(path):
        return open_file(path, flags, private=True)


def user_of(file: Path) -> int | None:
    """Return the id of the process that has the file open as its spool; None for nobody.

    Raises:
        SpoolError: its lock is no plain file of this user's.
    """
    if not os.path.lexists(lock_of(file)):
        return None
    fd = _opened(lock_of(file), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, LONGEST_OWNER, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdecimal() else 0
    else:
        return None
    finally:
        os.close(fd)
