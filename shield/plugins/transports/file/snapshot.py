"""Reads files of messages as they are, for a dry run: nothing is locked, renamed or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from shield import ShieldError, Source, Taken
from shield.plugins.transports.file.location import FileLocation
from shield.plugins.transports.file.source import note_of, recognised
from shield.selection import Mark


class FileSnapshot(Source):
    """What `FileSource` would give, at one moment, without what was brought back before.

    Raises:
        ShieldError: a file is not Shield's, not this user's alone, or cannot be read.
    """

    believed = True

    def __init__(self, place: FileLocation) -> None:
        recognised(place)
        self._place = place
        self._state = note_of(place)
        self._taken = self._all()
        self._ended = False

    def _all(self) -> Iterator[Taken]:
        for number in self._place.numbers():
            yield from self._of(str(number), self._place.full(number))
        yield from self._of("", self._place.path)

    def _of(self, name: str, path: Path) -> Iterator[Taken]:
        at = self._state["files"].get(name, 0)
        position = Mark.read(at, self._state["done"].get(name, ""))
        try:
            with self._place.opened(path) as file:
                for frame in self._place.format.read(file, at):
                    known = frame.envelope
                    if known is not None and not position.covers(frame.begins, known):
                        yield Taken(known, (name, frame.begins))
        except FileNotFoundError:
            return
        except OSError as error:
            raise ShieldError(f"{path}: cannot be read: {error.strerror}") from None

    def take(self, most: int, timeout_s: float) -> Sequence[Taken]:
        """Return the next ones."""
        taken = list(islice(self._taken, most))
        self._ended = not taken
        return taken

    def left(self) -> int | None:
        """Return 0 at the end; how many there are is only known then."""
        return 0 if self._ended else None

    def forget(self, taken: Taken) -> None:
        """Do nothing: all is left as it is."""

    def close(self) -> None:
        """Do nothing: a file is open only while it is read."""
