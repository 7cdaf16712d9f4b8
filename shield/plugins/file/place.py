"""A file that is written to, and those before it: how several processes share them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shield import URL
from shield.plugins.file.frames import FORMATS, Format
from shield.units import parse_size

FORM = "file:///path/to/file[?format=jsonl|lp][&rotate=256MiB][&durability=fsync|os]"
ROTATE = 256 * 2**20
SMALLEST = 4096
MODE = 0o600


@dataclass(frozen=True)
class Place:
    """What a `file://` URL names.

    The file itself is being written; `PATH.1`, `PATH.2` and so on are full, the oldest first, and
    written to no more. `PATH.redriven` says how far each has been read back.
    """

    path: Path
    format: Format
    rotate: int
    fsync: bool

    # --- the file that is written -----------------------------------------------------------------

    @contextmanager
    def locked(self, create: bool = True) -> Iterator[int]:
        """Have the file to oneself among all processes; OSError where it is not to be had."""
        while True:
            flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            file = os.open(self.path, flags, MODE)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._is_current(file):  # it became full while we waited for it
                    continue
                yield file
                return
            finally:
                os.close(file)

    def _is_current(self, file: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        return False

    def seal(self) -> None:
        """Give the file its number; whoever has it locked calls this."""
        last = 0
        with suppress(OSError, ValueError, KeyError, TypeError):  # who reads it back will say so
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
            found = json.loads(self.note.read_bytes())
            done = dict(found.get("done", {}))
            return {"last": int(found["last"]), "files": dict(found["files"]), "done": done}
        except FileNotFoundError:
            return {"last": 0, "files": {}, "done": {}}

    def write_back(self, state: dict[str, Any]) -> None:
        """Put a new note into the old one's place."""
        draft = self.note.with_name(f"{self.note.name}.new")
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
        try:
            os.write(file, json.dumps(state).encode())
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(draft, self.note)
        self.sync_folder()

    def sync_folder(self) -> None:
        """Make names durable, where files are to be."""
        if not self.fsync:
            return
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def place_of(url: URL) -> Place:
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
    return Place(Path(path), FORMATS[kind], rotate, durability == "fsync")
