"""A file that is written to, and those before it: how several processes share them."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shield import URL, ShieldError
from shield.plugins.transports.file.formats import FORMATS, UNREADABLE, Format
from shield.safe_files import check_folder, open_file, others_may_write, sync_folder, write_all
from shield.units import parse_size

FORM = "file:///path/to/file[?format=jsonl|lp][&rotate=256MiB][&durability=fsync|os]"
ROTATE = 256 * 2**20
SMALLEST = 4096
LARGEST_NOTE = 64 * 2**20


@dataclass(frozen=True)
class FileLocation:
    """What a `file://` URL names.

    The file itself is being written; `PATH.1`, `PATH.2` and so on are full, the oldest first, and
    written to no more. `PATH.redriven` says how far each has been read back.
    """

    path: Path
    format: Format
    rotate: int
    fsync: bool

    # --- the file that is written -----------------------------------------------------------------

    def begin(self, data: bytes) -> bool:
        """Make the file with its first messages in it; False where it is there by now.

        It gets its name when it is whole, so that after a power cut its beginning tells whose it
        is. Raises as `locked`.
        """
        check_folder(self.path.parent, sticky=True)
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        with self._alone() as alone:
            if os.path.lexists(self.path):
                return False
            file = open_file(draft, os.O_WRONLY | os.O_CREAT)
            try:
                write_all(file, data)
                if self.fsync:
                    os.fdatasync(file)
                (os.rename if alone else os.link)(draft, self.path)
            except FileExistsError:
                return False
            finally:
                os.close(file)
                draft.unlink(missing_ok=True)
        self.sync_folder()
        return True

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Have no other process make the file; False where that cannot be, as on NFS.

        Nor is it asked for where others may write: one of them might keep the lock.
        """
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        alone = not others_may_write(os.fstat(folder))
        try:
            if alone:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX)
                except OSError:
                    alone = False
            yield alone
        finally:
            os.close(folder)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Have the file to oneself among all processes.

        Raises:
            ShieldError: it is not Shield's, or not this user's alone; nothing was done to it.
            OSError: it is not to be had, or not there.
        """
        check_folder(self.path.parent, sticky=True)
        while True:
            file = open_file(self.path, os.O_RDWR | os.O_APPEND)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._is_current(file):  # it became full while we waited for it
                    continue
                self._recognise(self.path, file)
                yield file
                return
            finally:
                os.close(file)

    def _is_current(self, file: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        return False

    def recognise(self) -> None:
        """Look at all files before anything is done to one of them.

        Raises:
            ShieldError: one is not Shield's, or not this user's alone.
            OSError: one cannot be read.
        """
        check_folder(self.path.parent, sticky=True)
        for path in (*map(self.full, self.numbers()), self.path):
            with suppress(FileNotFoundError), self.opened(path):
                pass

    @contextmanager
    def opened(self, path: Path) -> Iterator[BinaryIO]:
        """Open one of the files to read it; raises as `recognise`."""
        with open(open_file(path, os.O_RDONLY), "rb") as file:
            self._recognise(path, file.fileno())
            yield file

    def _recognise(self, path: Path, file: int) -> None:
        """Look how a file begins; an empty one may become Shield's."""
        if not os.fstat(file).st_size:
            return
        with open(file, "rb", closefd=False) as beginning:
            known = self.format.recognises(beginning)
            beginning.seek(0)
        if not known:
            raise ShieldError(
                f"{path}: holds no messages of Shield's in this format; it was left as it is"
            )

    def seal(self) -> None:
        """Give the file its number; whoever has it locked calls this."""
        last = 0
        with suppress(OSError, ShieldError, *UNREADABLE):  # who reads it back will say so
            last = self.read_back()["last"]
        number = max([*self.numbers(), last]) + 1
        os.rename(self.path, self.full(number))
        self.sync_folder()

    # --- those that are full ----------------------------------------------------------------------

    def full(self, number: int) -> Path:
        """Return the path of a full file."""
        return self.path.with_name(f"{self.path.name}.{number}")

    def numbers(self) -> list[int]:
        """Return the numbers of the full files, the oldest first."""
        ends = (name.name[len(self.path.name) + 1 :] for name in self._beside())
        return sorted(int(end) for end in ends if end.isascii() and end.isdigit())

    def _beside(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return [p for p in self.path.parent.iterdir() if p.name.startswith(self.path.name)]
        return []

    # --- how far they have been read back ---------------------------------------------------------

    @property
    def note(self) -> Path:
        """Where that stands."""
        return self.path.with_name(f"{self.path.name}.redriven")

    def read_back(self) -> dict[str, Any]:
        """Return the last number there ever was, and for each file up to where it is read back.

        Under `done`: of some selections it is read back further, as `Position.text` says.
        """
        try:
            with open(open_file(self.note, os.O_RDONLY), "rb") as file:
                found = json.loads(file.read(LARGEST_NOTE))
        except FileNotFoundError:
            return {"last": 0, "files": {}, "done": {}}
        files = {name: int(at) for name, at in found["files"].items()}
        done = {name: str(text) for name, text in found.get("done", {}).items()}
        return {"last": int(found["last"]), "files": files, "done": done}

    def write_back(self, state: dict[str, Any]) -> None:
        """Put a new note into the old one's place."""
        draft = self.note.with_name(f"{self.note.name}.{secrets.token_hex(8)}")
        file = open_file(draft, os.O_WRONLY | os.O_CREAT)
        try:
            write_all(file, json.dumps(state).encode())
            os.fsync(file)
            os.rename(draft, self.note)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        self.sync_folder()

    def sync_folder(self) -> None:
        """Make names durable, where files are to be."""
        if self.fsync:
            sync_folder(self.path.parent)


def place_of(url: URL) -> FileLocation:
    """Read a URL.

    Raises:
        ValueError: it is none of a file.
    """
    (path,) = url.segments(1) or [""]
    if url.hosts or url.username is not None or not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"{url} names no file; allowed is {FORM}")
    options = url.options_of("format", "rotate", "durability")
    kind, durability = options.get("format", "jsonl"), options.get("durability", "fsync")
    if kind not in FORMATS:
        raise ValueError(f"format: found {kind!r}; allowed: {', '.join(FORMATS)}")
    if durability not in ("fsync", "os"):
        raise ValueError(f"durability: found {durability!r}; allowed: fsync, os")
    rotate = parse_size(options.get("rotate", "256MiB"))
    if rotate < SMALLEST:
        raise ValueError(f"rotate: found {options['rotate']!r}; allowed is 4KiB or more")
    return FileLocation(Path(path), FORMATS[kind], rotate, durability == "fsync")
