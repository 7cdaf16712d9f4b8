"""Power cuts: what was done to files is recorded, and what was not synced is lost, torn, reordered.

A process that is killed leaves the page cache behind, so that it cannot tell a missing fsync from
one that happened. Here every write, sync, truncation and renaming of the code under test is noted
in order: what Python does through `os`, and what SQLite does through a VFS that stands before its
own. `crash` then gives what a disk might hold had the power gone at one moment: of a file, what was
synced, and of later writes any sectors in any order; of a folder, the names up to its last sync and
maybe some later ones.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512


@dataclass
class Log:
    """What happened below one folder, in order."""

    root: str
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, *step: Any) -> None:
        with self.lock:
            self.steps.append(step)

    def covers(self, path: Any) -> bool:
        return os.fsdecode(path).startswith(self.root)

    def told(self, what: Any) -> None:
        """Note what was promised to a caller at this moment."""
        self.add("told", what)


# --- the disk -----------------------------------------------------------------------------------


class _File:
    """What is on the disk of one file, and what is only in the cache."""

    def __init__(self, is_folder: bool) -> None:
        self.is_folder = is_folder
        self.synced = b""
        self.pending: list[tuple[Any, ...]] = []

    def sync(self) -> None:
        data = bytearray(self.synced)
        for step in self.pending:
            _apply(data, step)
        self.synced, self.pending = bytes(data), []

    def after_a_cut(self, dice: random.Random) -> bytes:
        data = bytearray(self.synced)
        left = [part for step in self.pending for part in _sectors(step) if dice.random() < 0.5]
        dice.shuffle(left)
        for part in left:
            _apply(data, part)
        return bytes(data)


def _sectors(step: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Split a write where a disk may tear it."""
    if step[0] == "truncate":
        yield step
        return
    _, offset, data = step
    while data:
        most = SECTOR - offset % SECTOR
        yield "write", offset, data[:most]
        offset, data = offset + most, data[most:]


def _apply(data: bytearray, step: tuple[Any, ...]) -> None:
    if step[0] == "truncate":
        del data[step[1] :]
        data.extend(bytes(step[1] - len(data)))
        return
    _, offset, written = step
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(written)] = written


def crash(log: Log, at: int, dice: random.Random) -> dict[str, bytes]:
    """Return name and content of each file, had the power gone before the step with that number."""
    now: dict[str, _File] = {}
    safe: dict[str, _File] = {}
    later: list[tuple[Any, ...]] = []
    for kind, *what in log.steps[:at]:
        if kind in ("write", "truncate"):
            now[what[0]].pending.append((kind, *what[1:]))
        elif kind == "sync":
            now[what[0]].sync()
        elif kind == "sync names":
            _rename(safe, [step for step in later if os.path.dirname(step[1]) == what[0]])
            later = [step for step in later if os.path.dirname(step[1]) != what[0]]
        elif kind in ("create", "rename", "unlink"):
            step = (kind, what[0], _File(what[-1]) if kind == "create" else what[-1])
            later.append(step)
            _rename(now, [step])
    _rename(safe, later[: dice.randint(0, len(later))])
    folders = {name for name, file in safe.items() if file.is_folder}
    return {
        name: file.after_a_cut(dice)
        for name, file in safe.items()
        if not file.is_folder and all(above in folders for above in _above(name, log.root))
    }


def _above(name: str, root: str) -> list[str]:
    """Return the folders between the recorded one and a file."""
    above = os.path.dirname(name)
    return [] if not above.startswith(root) else [above, *_above(above, root)]


def _rename(names: dict[str, _File], steps: list[tuple[Any, ...]]) -> None:
    for kind, name, what in steps:
        if kind == "create":
            names[name] = what
        elif kind == "rename":
            names[what] = names.pop(name)
        else:
            names.pop(name, None)


def moments(log: Log, number: int, dice: random.Random) -> list[int]:
    """Return moments of the log to cut the power at: some at random, and its end."""
    return [*(dice.randint(0, len(log.steps)) for _ in range(number)), len(log.steps)]


def restore(files: dict[str, bytes], folder: Path) -> None:
    """Write what a disk holds into an empty folder."""
    folder.mkdir(mode=0o700)
    for name, data in files.items():
        path = folder / os.path.basename(name)
        path.write_bytes(data)
        path.chmod(0o600)


# --- what Python does ---------------------------------------------------------------------------


@contextmanager
def recorded(folder: Path, patch: Any) -> Iterator[Log]:
    """Record all that happens below a folder, by Python and by SQLite.

    Args:
        folder: made, and synced, before.
        patch: pytest's monkeypatch.
    """
    log = Log(f"{folder}/")
    _record_os(log, patch)
    with _recording_vfs(log):
        yield log


def _record_os(log: Log, patch: Any) -> None:
    paths: dict[int, str] = {}
    real = {name: getattr(os, name) for name in dir(os)}

    def opened(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        with log.lock:
            new = not os.path.lexists(path)
            file: int = real["open"](path, flags, mode, **more)
            paths.pop(file, None)
            if log.covers(os.path.join(os.path.abspath(path), "")):
                paths[file] = os.path.abspath(path)
                if new:
                    log.add("create", paths[file], False)
        return file

    def write(file: int, data: Any) -> int:
        with log.lock:
            written: int = real["write"](file, data)
            if file in paths:
                at = real["fstat"](file).st_size - written  # all that is written is appended
                log.add("write", paths[file], at, bytes(data)[:written])
        return written

    def sync(name: str) -> Any:
        def sync(file: int) -> None:
            with log.lock:
                real[name](file)
                path = paths.get(file)
                if path is not None:
                    log.add("sync names" if os.path.isdir(path) else "sync", path)

        return sync

    def ftruncate(file: int, size: int) -> None:
        with log.lock:
            real["ftruncate"](file, size)
            if file in paths:
                log.add("truncate", paths[file], size)

    def rename(old: Any, new: Any) -> None:
        with log.lock:
            real["rename"](old, new)
            if log.covers(old):
                log.add("rename", os.fspath(old), os.fspath(new))
                for file, path in paths.items():
                    if path == os.fspath(old):
                        paths[file] = os.fspath(new)

    def mkdir(path: Any, mode: int = 0o777) -> None:
        with log.lock:
            real["mkdir"](path, mode)
            if log.covers(path):
                log.add("create", os.path.abspath(path), True)

    def unlink(path: Any) -> None:
        with log.lock:
            real["unlink"](path)
            if log.covers(path):
                log.add("unlink", os.fspath(path))

    for name, replacement in {
        "open": opened,
        "write": write,
        "fsync": sync("fsync"),
        "fdatasync": sync("fdatasync"),
        "ftruncate": ftruncate,
        "mkdir": mkdir,
        "rename": rename,
        "unlink": unlink,
    }.items():
        patch.setattr(os, name, replacement)


# --- what SQLite does ---------------------------------------------------------------------------

P, N, L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
CREATE, WAL = 0x4, 0x80000


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`, as far as it is written over; what follows is copied with it."""

    _fields_ = (
        ("iVersion", N),
        ("xClose", ctypes.CFUNCTYPE(N, P)),
        ("xRead", P),
        ("xWrite", ctypes.CFUNCTYPE(N, P, P, N, L)),
        ("xTruncate", ctypes.CFUNCTYPE(N, P, L)),
        ("xSync", ctypes.CFUNCTYPE(N, P, N)),
        ("rest", P * 13),
    )


class _OpenFile(ctypes.Structure):
    """`sqlite3_file`."""

    _fields_ = (("pMethods", ctypes.POINTER(_Methods)),)


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`."""

    _fields_ = (
        ("iVersion", N),
        ("szOsFile", N),
        ("mxPathname", N),
        ("pNext", P),
        ("zName", ctypes.c_char_p),
        ("pAppData", P),
        ("xOpen", ctypes.CFUNCTYPE(N, P, P, P, N, P)),
        ("xDelete", ctypes.CFUNCTYPE(N, P, ctypes.c_char_p, N)),
        ("rest", P * 14),
    )


@contextmanager
def _recording_vfs(log: Log) -> Iterator[None]:
    """Stand before SQLite's own way to files."""
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    real = library.sqlite3_vfs_find(None)
    vfs = _Vfs.from_buffer_copy(real.contents)
    vfs.zName = b"recording"
    alive: list[_Methods] = []
    """All of them: none may go while SQLite is in it."""

    def opened(_vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        with log.lock:
            path = ctypes.string_at(name).decode() if name else ""
            new = bool(path) and not os.path.lexists(path)
            result: int = real.contents.xOpen(ctypes.cast(real, P).value, name, file, flags, out)
            if result == 0 and log.covers(path) and not path.endswith("-shm"):
                if new:
                    log.add("create", path, False)
                alive.append(_written_over(log, path, file, new and bool(flags & WAL)))
        return result

    def delete(_vfs: int, name: bytes, sync: int) -> int:
        with log.lock:
            result: int = real.contents.xDelete(ctypes.cast(real, P).value, name, sync)
            if result == 0 and log.covers(name):
                log.add("unlink", os.fsdecode(name))
                if sync:
                    log.add("sync names", os.path.dirname(os.fsdecode(name)))
        return result

    vfs.xOpen = type(vfs.xOpen)(opened)
    vfs.xDelete = type(vfs.xDelete)(delete)
    library.sqlite3_vfs_register(ctypes.byref(vfs), 1)
    try:
        yield
    finally:
        library.sqlite3_vfs_unregister(ctypes.byref(vfs))
        library.sqlite3_vfs_register(real, 1)


def _written_over(log: Log, path: str, file: int, syncs_names: bool) -> _Methods:
    """Put methods that note what is done in the place of a file's own.

    With `syncs_names` its first sync is one of its folder, too, as SQLite does for a journal that
    it has made.
    """
    handle = ctypes.cast(file, ctypes.POINTER(_OpenFile))
    real = handle.contents.pMethods.contents
    methods = _Methods.from_buffer_copy(real)
    unsynced = [syncs_names]

    def write(file: int, data: int, size: int, at: int) -> int:
        with log.lock:
            result: int = real.xWrite(file, data, size, at)
            log.add("write", path, at, ctypes.string_at(data, size))
        return result

    def truncate(file: int, size: int) -> int:
        with log.lock:
            result: int = real.xTruncate(file, size)
            log.add("truncate", path, size)
        return result

    def sync(file: int, flags: int) -> int:
        with log.lock:
            result: int = real.xSync(file, flags)
            log.add("sync", path)
            if unsynced.pop() if unsynced else False:
                log.add("sync names", os.path.dirname(path))
        return result

    def close(file: int) -> int:
        handle.contents.pMethods = ctypes.pointer(real)
        result: int = real.xClose(file)
        return result

    for name, replacement in (
        ("xWrite", write),
        ("xTruncate", truncate),
        ("xSync", sync),
        ("xClose", close),
    ):
        setattr(methods, name, type(getattr(methods, name))(replacement))
    handle.contents.pMethods = ctypes.pointer(methods)
    return methods
