"""How a thread waits: by its clock alone, or while it serves the connection of its client.

A client whose own thread serves its connection, as pika's BlockingConnection, loses it where that
thread waits longer than its heartbeats. Such a client waits `attending` to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from shield.clock import Clock

Result = TypeVar("Result")


class _Attended(threading.local):
    serve: Callable[[], None] | None = None
    every_s = 1.0


_attended = _Attended()


@contextmanager
def attending(serve: Callable[[], None], every_s: float) -> Iterator[None]:
    """Let this thread call `serve` every so often while it is kept waiting; what it raises ends it.

    It must not run users' code: it is called in the middle of a send.
    """
    before = _attended.serve, _attended.every_s
    _attended.serve, _attended.every_s = serve, every_s
    try:
        yield
    finally:
        _attended.serve, _attended.every_s = before


def pause(clock: Clock, woken: threading.Event, timeout_s: float) -> bool:
    """Wait until the event is set or the time is over, as `clock.wait`; tell whether it is."""
    serve = _attended.serve
    if serve is None:
        return clock.wait(woken, timeout_s)
    until = clock.now() + timeout_s
    while True:
        left_s = until - clock.now()
        if clock.wait(woken, max(0.0, min(left_s, _attended.every_s))):
            return True
        if clock.now() >= until:
            return False
        serve()


def wait_for(condition: threading.Condition) -> None:
    """Wait for a condition to be notified, its lock held; not always as long as that takes.

    What is attended is served without the lock. Who calls it looks again, as with any condition.
    """
    serve = _attended.serve
    if serve is None:
        condition.wait()
    elif not condition.wait(_attended.every_s):
        condition.release()
        try:
            serve()
        finally:
            condition.acquire()


def result_within(future: Future[Result], timeout_s: float) -> Result:
    """Return a future's result, or raise its error.

    Raises:
        TimeoutError: it has none in time.
    """
    serve = _attended.serve
    until = time.monotonic() + timeout_s
    while True:
        left_s = until - time.monotonic()
        try:
            return future.result(left_s if serve is None else min(left_s, _attended.every_s))
        except TimeoutError:
            if serve is None or future.done() or time.monotonic() >= until:
                raise
            serve()
