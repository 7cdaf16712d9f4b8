"""Reads files of messages back, the oldest first, and remembers how far it has come."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shield import Envelope, ShieldError, Taken
from shield.plugins.transports.file.formats import UNREADABLE, Frame
from shield.plugins.transports.file.location import FileLocation
from shield.redriving.read_ahead import ReadAheadSource
from shield.safe_files import open_file
from shield.selection import Mark

log = logging.getLogger("shield.file")
NOTE_EVERY_S = 0.5
LOOK_EVERY_S = 0.1


def recognised(place: FileLocation) -> None:
    """Look at all files of a place before anything is done to them.

    Raises:
        ShieldError: one is not Shield's, not this user's alone, or cannot be read.
    """
    try:
        place.recognise()
    except OSError as error:
        raise ShieldError(f"cannot read {place.path} back: {error.strerror}") from None


def note_of(place: FileLocation) -> dict[str, Any]:
    """Return how far the files of a place are read back.

    Raises:
        ShieldError: that cannot be read.
    """
    try:
        return place.read_back()
    except (OSError, *UNREADABLE) as error:
        raise ShieldError(f"{place.note}: cannot be read: {error!r}") from None


class FileSource(ReadAheadSource):
    """One file after another; one whose messages are all forgotten is removed.

    The file that is being written is closed to its writers, who begin another one, when it is its
    turn to be read. How far each file is read back stands in `PATH.redriven`; a process that is
    killed leaves duplicates of half a second at the most.

    Raises:
        ShieldError: the folder cannot be written to, or another process reads the files back.
    """

    believed = True

    def __init__(self, place: FileLocation) -> None:
        super().__init__()
        self._place = place
        recognised(place)
        self._lock = self._locked()
        try:
            self._state = note_of(place)
        except ShieldError:
            os.close(self._lock)
            raise
        self._starts: dict[str, int] = dict(self._state["files"])
        self._reading: Iterator[Frame] = iter(())
        self._current: int | None = None
        self._begun: dict[int, _Progress] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        self._broken: ShieldError | None = None
        self._noted_s = time.monotonic()
        self.skipped = 0
        """How many pieces of the files were no messages."""

    def _locked(self) -> int:
        path = self._place.path.with_name(f"{self._place.path.name}.lock")
        try:
            file = open_file(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ShieldError(f"cannot read {self._place.path} back: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise ShieldError(f"{self._place.path} is read back by another process") from None
        return file

    # --- who takes --------------------------------------------------------------------------------

    def take(self, most: int, timeout_s: float) -> list[Taken]:
        """Return up to so many, oldest first.

        Raises:
            ShieldError: a message of a later version, or a file that cannot be read.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._read_ahead(most)
            self._note_now_and_then()
            left_s = deadline - time.monotonic()
            taken = super().take(most, max(0.0, min(left_s, LOOK_EVERY_S)))
            if taken or left_s <= 0:
                return taken

    def left(self) -> int | None:
        """Return how many are not taken; what is torn counts until it is read."""
        number = self.in_turn.untaken + self._count("", self._place.path)
        for full in self._place.numbers():
            read = self._begun[full].read if full in self._begun else 0
            number += max(0, self._count(str(full), self._place.full(full)) - read)
        return number

    def close(self) -> None:
        """Note how far all is forgotten; remove files of which nothing is left."""
        try:
            self._note()
        finally:
            self._reading = iter(())
            os.close(self._lock)

    # --- reading ----------------------------------------------------------------------------------

    def _read_ahead(self, most: int) -> None:
        """Have so many to be taken, as far as there are any."""
        while self.in_turn.untaken < most:
            frame = self._next_frame()
            if frame is None:
                if not self._begin_next():
                    return
                continue
            assert self._current is not None
            progress = self._begun[self._current]
            progress.read += 1
            if frame.envelope is None:
                progress.damaged = True
                self._skip(self._current, frame)
            else:
                self._put(self._current, frame, frame.envelope)

    def _put(self, number: int, frame: Frame, envelope: Envelope) -> None:
        """Have a message taken, but for one that an earlier redrive has brought back."""
        if not self.was_forgotten(self.positions[number], frame.begins, envelope):
            self.in_turn.put(number, frame.begins, frame.ends, envelope)

    def _next_frame(self) -> Frame | None:
        """Return what stands next in the file that is being read; None at its end."""
        if self._broken is not None:
            raise self._broken
        try:
            frame = next(self._reading, None)
        except (OSError, ShieldError) as error:
            where = "" if self._current is None else f"{self._place.full(self._current)}: "
            self._broken = ShieldError(f"{where}cannot be read back: {error}")
            raise self._broken from None
        if frame is None and self._current is not None:
            self._begun[self._current].ended = True
            self._current = None
        return frame

    def _begin_next(self) -> bool:
        """Begin with the oldest file that is not begun; False where there is none."""
        waiting = self._waiting()
        if not waiting and self._seal():
            waiting = self._waiting()
        if not waiting:
            return False
        number = self._current = waiting[0]
        self._begun[number] = _Progress(self._place.full(number).stat().st_size)
        done = self._state["done"].get(str(number), "")
        self.positions[number] = Mark.read(self._starts.get(str(number), 0), done)
        self._reading = self._frames(number)
        return True

    def _waiting(self) -> list[int]:
        return [number for number in self._place.numbers() if number not in self._begun]

    def _seal(self) -> bool:
        """Close the file that is being written to its writers, where anything is in it."""
        try:
            with self._place.locked() as file:
                if not os.fstat(file).st_size:
                    return False
                self._place.seal()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ShieldError(f"cannot read {self._place.path} back: {error.strerror}") from None
        return True

    def _frames(self, number: int) -> Iterator[Frame]:
        with self._place.opened(self._place.full(number)) as file:
            yield from self._place.format.read(file, self._starts.get(str(number), 0))

    def _skip(self, number: int, frame: Frame) -> None:
        self.skipped += 1
        log.warning(
            "%s: bytes %d to %d are no message, torn by a crash or damaged; skipped",
            self._place.full(number),
            frame.begins,
            frame.ends,
        )

    def _count(self, name: str, path: Path) -> int:
        """Return how many messages a file held at first; counted anew only when it has grown."""
        try:
            size = path.stat().st_size
            if self._counted.get(name, (-1, 0))[0] != size:
                with self._place.opened(path) as file:
                    number = self._place.format.count(file, self._starts.get(name, 0))
                self._counted[name] = size, number
        except (OSError, ShieldError):
            return 0
        return self._counted[name][1]

    # --- how far it has come ----------------------------------------------------------------------

    def _note_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._noted_s >= NOTE_EVERY_S:
            self._noted_s = now
            self._note()

    def _note(self) -> None:
        """Write down how far each file is forgotten; remove those of which nothing is left."""
        files, changed = self._state["files"], False
        for number in self._begun:
            position = self.moved(number)
            if position is not None:
                files[str(number)], self._state["done"][str(number)] = position.at, position.text
                changed = True
        done = [number for number in self._begun if self._is_done(number)]
        self._state["last"] = max(self._state["last"], *self._begun, 0)
        try:
            if changed or done:
                self._place.write_back(self._state)
            for number in done:
                self._remove(number)
        except OSError as error:
            raise ShieldError(f"cannot write {self._place.note}: {error.strerror}") from None

    def _is_done(self, number: int) -> bool:
        """Tell whether a file is read to its end and all of it forgotten."""
        progress = self._begun[number]
        at_end = progress.ended or self._state["files"].get(str(number), 0) >= progress.size
        return at_end and not self.in_turn.is_open(number)

    def _remove(self, number: int) -> None:
        """Remove a file; one that was damaged is kept under another name, to be looked at."""
        path = self._place.full(number)
        if self._current == number:
            self._current, self._reading = None, iter(())
        self._state["files"].pop(str(number), None)
        self._state["done"].pop(str(number), None)
        with suppress(FileNotFoundError):
            if self._begun.pop(number).damaged:
                path.rename(path.with_name(f"{path.name}.damaged"))
            else:
                path.unlink()


@dataclass
class _Progress:
    """How far a full file has been read."""

    size: int
    read: int = 0
    ended: bool = False
    damaged: bool = False
