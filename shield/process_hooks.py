"""What is done when a program ends: one limit of time for all of it, and a word on what is lost.

`atexit` calls it, and in a child that `multiprocessing` has started, where nothing calls what is
registered there, `multiprocessing`'s own finalizers.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from shield.engine import process

EXIT_WITHIN_S = 10.0
"""How long a program that ends waits for all that is buffered, queued and unconfirmed."""
LOST = ("raised", "dropped", "failed")

log = logging.getLogger("shield")
Ending = Callable[[float], None]
_endings: dict[Ending, Callable[[], object]] = {}
"""What is to be called, and what takes that back in a child of `multiprocessing`."""
_deadline: list[float] = []


def at_exit(ending: Ending, turn: int = 1) -> None:
    """Have it called once, with the seconds that are left, when this process ends.

    Who was registered last comes first; in a child of `multiprocessing`, who has the higher turn.
    """
    if ending not in _endings:
        atexit.register(_End(ending))
    at_childs_end(ending, turn)


def at_childs_end(ending: Ending, turn: int = 0) -> None:
    """Have it called in a child of `multiprocessing` alone: elsewhere its client does it."""
    if ending in _endings:
        return
    _endings[ending] = _nothing
    module = sys.modules.get("multiprocessing.process")
    if module is not None and module.parent_process() is not None:
        from multiprocessing.util import Finalize

        _endings[ending] = Finalize(None, _End(ending), exitpriority=turn).cancel


def not_at_exit(ending: Ending) -> None:
    """Take it back: it has ended before the program does."""
    _endings.pop(ending, _nothing)()
    atexit.unregister(_End(ending))


def left_s() -> float:
    """Return the seconds that are left of the limit, which begins with the first who asks."""
    if not _deadline:
        _deadline.append(time.monotonic() + EXIT_WITHIN_S)
    return max(0.0, _deadline[0] - time.monotonic())


@dataclass(frozen=True)
class _End:
    """Calls it; one that is equal takes it back from `atexit`."""

    ending: Ending

    def __call__(self) -> None:
        if _endings.pop(self.ending, None) is not None:
            _call(self.ending)


def _call(ending: Ending) -> None:
    before = process.ledger()
    ending(left_s())
    after = process.ledger()
    lost = {end: getattr(after, end) - getattr(before, end) for end in LOST}
    if sum(lost.values()):
        ends = ", ".join(f"{messages} {end}" for end, messages in lost.items() if messages)
        log.warning(
            "%d messages could not be sent before the program ended: %s", sum(lost.values()), ends
        )


def _nothing() -> None:
    """Take nothing back."""


def _forget() -> None:
    """Begin anew in a forked child: what is the parent's, the parent ends."""
    _endings.clear()
    _deadline.clear()


os.register_at_fork(after_in_child=_forget)
