"""Counts the Python calls of one thread into this project's code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parent.parent
OURS = (f"{ROOT / 'shield'}/", f"{ROOT / 'adapters'}/")


class Trip:
    """What one thread has called of ours: each function once, however often it was called.

    Functions are told apart by where they stand; a generator that goes on is no new one. Calls of
    the client's own code, of C functions, and of other threads are not seen.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        """All calls, in order, as `module:function`."""

    @property
    def frames(self) -> int:
        """How many distinct functions were entered."""
        return len(set(self.calls))

    @property
    def modules(self) -> int:
        """In how many files these stand."""
        return len({call.partition(":")[0] for call in self.calls})

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """Take note of one event, for `sys.setprofile`."""
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            file = Path(code.co_filename).relative_to(ROOT)
            self.calls.append(f"{file}:{code.co_qualname}")


@contextmanager
def traced() -> Iterator[Trip]:
    """Trace this thread for as long as the block takes."""
    trip, before = Trip(), sys.getprofile()
    sys.setprofile(trip.note)
    try:
        yield trip
    finally:
        sys.setprofile(before)
