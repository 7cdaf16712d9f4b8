"""Files and folders by name, used only where no other user can have had a hand in them.

Whoever may write a folder may put a link in the place of what is expected there, and whoever owns
a file, or has another name for it, may read and change what is written to it. So a path is walked
from the root before it is used: each step has to be this user's or root's, and closed to others.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from shield.errors import ShieldError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
MOST_LINKS = 40
ANYBODY = 0o022
PRIVATE = 0o077
SAFELY = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnsafeFileError(ShieldError):
    """A file or folder that others may have made, or may change, or that is none; left untouched.

    The text names it, says why, and what is allowed.
    """


# --- folders ------------------------------------------------------------------------------------


def check_folder(folder: Path, *, own: bool = False, sticky: bool = False) -> None:
    """Refuse a folder in which others may put, rename or remove something.

    Neither it nor any folder or link on the way to it may be another user's than this one or
    root, or be open to be written by others. On the way a sticky folder, as /tmp, is fine. Those
    who share a group with this process, and may write by that, are trusted; not with `own`, which
    asks for a folder of this user's own that nobody else may write at all. With `sticky` such a
    folder will do as well: there nobody can rename or remove what is another's, so that a file
    which `open_file` finds to be this user's stays it.

    Raises:
        UnsafeFileError: it is not fit.
        OSError: it is not there, or no folder.
    """
    for path, found in _steps(folder):
        _check_step(path, found)
    found = os.stat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if others_may_write(found) and not (sticky and found.st_mode & stat.S_ISVTX):
        raise UnsafeFileError(_open_to_others(str(folder), found))
    if own and found.st_uid != os.geteuid():
        raise UnsafeFileError(f"{folder}: {_another_users(found)}; allowed is a folder of its own")
    if own and found.st_mode & ANYBODY:
        raise UnsafeFileError(_open_to_others(str(folder), found))


def make_folder(folder: Path) -> None:
    """Make a folder for this user alone, and what is missing above it; check what is there.

    The names are on the disk itself when this returns.

    Raises:
        UnsafeFileError: it is there, or is to be, where others may write.
        OSError: it cannot be made.
    """
    if not os.path.lexists(folder):
        _make(folder)
    check_folder(folder, own=True)


def _make(folder: Path) -> None:
    parent = folder.parent
    if os.path.lexists(parent) or parent == folder:
        for path, found in _steps(parent):
            _check_step(path, found)
    else:
        _make(parent)
    try:
        os.mkdir(folder, FOLDER_MODE)
    except FileExistsError:
        return
    sync_folder(parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk itself."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _steps(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each folder, and each link, that a path leads through from the root on."""
    at, links = "/", 0
    yield at, os.lstat(at)
    left = os.path.join(os.getcwd(), path).split("/")[::-1]
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = os.path.dirname(at)
            continue
        step = os.path.join(at, part)
        found = os.lstat(step)
        yield step, found
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = os.readlink(step)
        at = "/" if target.startswith("/") else at
        left += target.split("/")[::-1]


def _check_step(path: str, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise UnsafeFileError(
            f"{path}: {_another_users(found)}, who can put anything there; allowed is a place "
            "below folders of this user or of root"
        )
    if stat.S_ISDIR(found.st_mode) and others_may_write(found) and not found.st_mode & stat.S_ISVTX:
        raise UnsafeFileError(_open_to_others(path, found))


def others_may_write(found: os.stat_result) -> bool:
    """Tell whether anybody may write it, or a group that this process is no member of."""
    if found.st_mode & stat.S_IWOTH:
        return True
    groups = (os.getegid(), *os.getgroups())
    return bool(found.st_mode & stat.S_IWGRP) and found.st_gid not in groups


# --- files --------------------------------------------------------------------------------------


def open_file(path: Path, flags: int, *, private: bool = False) -> int:
    """Open a plain file of this user that has one name; return its descriptor.

    One that is not there is made, with `O_CREAT`, for this user alone. Never waits, and never
    follows a link. With `private` others may not even read it.

    Raises:
        UnsafeFileError: it is another user's, open to others, or no plain file.
        OSError: it cannot be opened.
    """
    create, flags = flags & os.O_CREAT, (flags & ~os.O_CREAT) | SAFELY
    while True:
        try:
            check_file(path, os.lstat(path), private=private)
            return _checked(path, os.open(path, flags), private)
        except FileNotFoundError:
            if not create:
                raise
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
        except FileExistsError:
            continue


def write_all(file: int, data: bytes) -> None:
    """Write all of it, however much the system takes at a time.

    Raises:
        OSError: a part of it may be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _checked(path: Path, file: int, private: bool) -> int:
    """Look again at what was really opened."""
    try:
        check_file(path, os.fstat(file), private=private)
    except BaseException:
        os.close(file)
        raise
    return file


def check_file(path: Path, found: os.stat_result, *, private: bool = False) -> None:
    """Refuse what is not this user's own plain file.

    Raises:
        UnsafeFileError: it is not.
    """
    problem = _problem_of(found, private)
    if problem is not None:
        raise UnsafeFileError(f"{path}: {problem}")


def _problem_of(found: os.stat_result, private: bool) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "no plain file")
        return f"is {kind}; allowed is a plain file"
    if found.st_uid != os.geteuid():
        return f"{_another_users(found)}; allowed is a file of its own: run this as that user"
    if found.st_nlink > 1:
        return f"has {found.st_nlink} names (hard links); allowed is a file with one"
    if private and found.st_mode & PRIVATE:
        return f"others may use it (its mode is {_mode(found)}); allowed is 0600"
    if others_may_write(found):
        return f"others may write it (its mode is {_mode(found)}); allowed is 0600"
    return None


def _open_to_others(path: str, found: os.stat_result) -> str:
    return (
        f"{path}: others may write there (its mode is {_mode(found)}); allowed is a folder that "
        "only this user may write, as one with mode 0700"
    )


def _another_users(found: os.stat_result) -> str:
    return f"belongs to {_user(found.st_uid)}, and this process is {_user(os.geteuid())}"


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"
