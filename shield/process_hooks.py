"""What is done when a process forks, and when it ends: all of it is entered here, and run here.

In a forked child, `ForkStage` by stage, so that an engine begins anew only once what its parent had
open is out of the way. When a program ends, `ExitStage` by stage within one limit of time, with a
word on what is lost. `atexit` calls that, and in a child that `multiprocessing` has started, where
nothing calls what is registered there, one of `multiprocessing`'s own finalizers.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from enum import IntEnum

EXIT_WITHIN_S = 10.0
"""How long a program that ends waits for all that is buffered, queued and unconfirmed."""

log = logging.getLogger("shield")
Ending = Callable[[float], None]
"""Called with the seconds that are left of the limit."""
Lost = Callable[[], Mapping[str, int]]
"""Tells how many messages have been lost so far, by how."""


class ForkStage(IntEnum):
    """The order in a forked child; within a stage, that of registration."""

    STATE = 0
    """Locks and caches of a module: made anew, so that whoever comes later may use them."""
    RESOURCES = 1
    """Connections, files and threads of the parent: left to it."""
    ENGINES = 2
    """Books, rules and policies: begun anew."""


class ExitStage(IntEnum):
    """The order at the end of a process; within a stage, who was registered last comes first."""

    KEPT = 0
    """What is kept in memory: clients must still be open to send it."""
    SENDERS = 1
    """Transports, spools and write threads."""
    CLIENTS = 2
    """Clients that end by themselves elsewhere: only in a child of `multiprocessing`."""


_in_child: dict[Callable[[], object], ForkStage] = {}
_endings: dict[Ending, ExitStage] = {}
_deadline: list[float] = []
_lost: list[Lost] = []


def after_fork(action: Callable[[], object], stage: ForkStage) -> None:
    """Have it called in each forked child, before anything else runs there."""
    _in_child[action] = stage


def at_exit(ending: Ending, stage: ExitStage = ExitStage.SENDERS) -> None:
    """Have it called once when this process ends: before what `atexit` has been told up to now."""
    _endings.setdefault(ending, stage)
    atexit.unregister(_end_all)
    atexit.register(_end_all)
    _enter_child()


def at_childs_end(ending: Ending) -> None:
    """Have it called in a child of `multiprocessing` alone: elsewhere its client does it."""
    if _enter_child():
        _endings.setdefault(ending, ExitStage.CLIENTS)


def not_at_exit(ending: Ending) -> None:
    """Take it back: it has ended before the program does."""
    _endings.pop(ending, None)


def count_lost_with(lost: Lost) -> None:
    """Have it asked before and after each ending, which is said to have lost the difference."""
    _lost.append(lost)


def left_s() -> float:
    """Return the seconds that are left of the limit, which begins with the first who asks."""
    if not _deadline:
        _deadline.append(time.monotonic() + EXIT_WITHIN_S)
    return max(0.0, _deadline[0] - time.monotonic())


def _enter_child() -> bool:
    """Tell whether this is a child of `multiprocessing`; if so, have its finalizers end all."""
    module = sys.modules.get("multiprocessing.process")
    if module is None or module.parent_process() is None:
        return False
    if not _finalizers:
        from multiprocessing.util import Finalize

        _finalizers.append(Finalize(None, _end_all, exitpriority=2))
    return True


_finalizers: list[object] = []


def _end_all() -> None:
    """Run every ending; also those that are registered meanwhile."""
    while _endings:
        ending = min(reversed(_endings), key=_endings.__getitem__)
        del _endings[ending]
        try:
            _call(ending)
        except Exception:
            log.exception("something could not be ended with the program")


def _call(ending: Ending) -> None:
    before = _lost_so_far()
    ending(left_s())
    after = _lost_so_far()
    lost = {how: number - before.get(how, 0) for how, number in after.items()}
    if sum(lost.values()):
        ends = ", ".join(f"{messages} {how}" for how, messages in lost.items() if messages)
        log.warning(
            "%d messages could not be sent before the program ended: %s", sum(lost.values()), ends
        )


def _lost_so_far() -> dict[str, int]:
    return {how: number for lost in _lost for how, number in lost().items()}


def _after_fork_in_child() -> None:
    """Run all stages; what fails in one keeps nothing from the others."""
    for action in sorted(_in_child, key=_in_child.__getitem__):
        try:
            action()
        except Exception:
            log.exception("something could not begin anew in a forked child")


def _forget() -> None:
    """What is the parent's, the parent ends."""
    _endings.clear()
    _deadline.clear()
    _finalizers.clear()


after_fork(_forget, ForkStage.STATE)
os.register_at_fork(after_in_child=_after_fork_in_child)
