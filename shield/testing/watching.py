"""What a plugin takes and does not give back: time, memory, threads and open files."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from shield.testing.contract import eventually, expect

CALL_S = 0.005
"""How long one call that does no I/O may take, on the average of many: far more than it should."""
ROUNDS = 5
"""How often work is repeated to see what grows by it."""
FIRST_ROUNDS = 2
"""How many of them may fill caches."""
TRIES = 3
"""How many tries must show growth before it counts as one."""


def expect_quick(call: Callable[[], object], calls: int, what: str) -> None:
    """Call so often; AssertionError where a call takes more than `CALL_S` on the average."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    each_s = (time.perf_counter() - began) / calls
    expect(each_s <= CALL_S, f"{what} to take {CALL_S} s at the most", f"{each_s:.4f} s")


def expect_no_growth(work: Callable[[], object], most_bytes: int, what: str) -> None:
    """Do the work several times; AssertionError where one time leaves more memory in use.

    What comes and goes, as a cache that fills, is no growth: the least of the later times counts
    against the most of the first ones. Nor is what another thread of the program happens to keep:
    what grows by this work grows in each of the `TRIES`.
    """
    grown = _grown(work)
    for _ in range(TRIES - 1):
        if grown > most_bytes:
            grown = min(grown, _grown(work))
    expected = f"{what} to keep {most_bytes:,} bytes more at the most"
    expect(grown <= most_bytes, expected, f"{grown:,} bytes more")


def _grown(work: Callable[[], object]) -> int:
    """Return how many bytes more are in use after later times than after the first ones."""
    with _traced(), _unlogged():
        held = []
        for _ in range(ROUNDS):
            work()
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    return min(held[FIRST_ROUNDS:]) - max(held[:FIRST_ROUNDS])


@contextmanager
def _traced() -> Iterator[None]:
    before = tracemalloc.is_tracing()
    if not before:
        tracemalloc.start()
    try:
        yield
    finally:
        if not before:
            tracemalloc.stop()


@contextmanager
def _unlogged() -> Iterator[None]:
    """Let nobody log: test runners keep what is logged."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


def expect_nothing_left(work: Callable[[], object], what: str) -> None:
    """Do the work several times; AssertionError where that leaves threads or files open.

    What the first time leaves is taken for what all later ones share.
    """
    work()
    threads, files = _threads(), _open_files()
    for _ in range(ROUNDS - 1):
        work()
    expected = f"{what} to leave no thread more than {threads}, nor a file more than {files}"
    ended = eventually(lambda: _threads() <= threads and _open_files() <= files)
    expect(ended, expected, f"{_threads()} threads, {_open_files()} files")


def _threads() -> int:
    return threading.active_count()


def _open_files() -> int:
    """Return how many files and sockets are open; 0 where the system does not tell."""
    gc.collect()  # clients leave sockets to the collector
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return 0


def in_threads(number: int, work: Callable[[int], object]) -> None:
    """Do the work on so many threads at once, each with its number; raise what one has raised."""
    errors: list[BaseException] = []

    def run(thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(number)]
    for thread in threads:
        thread.start()
    ended = eventually(lambda: not any(thread.is_alive() for thread in threads))
    expect(ended, f"{number} threads to end", "one that does not")
    for error in errors:
        raise error
