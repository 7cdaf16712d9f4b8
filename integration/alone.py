"""Tests marked `alone` run while no other test does, in any of pytest-xdist's processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def last(items: list[pytest.Item]) -> None:
    """Put the files that have such tests behind the others, for which nobody need wait."""
    files = {item.path for item in items if _is_alone(item)}
    items.sort(key=lambda item: item.path in files)


@contextmanager
def turn_of(item: pytest.Item, held: Path = _HERE) -> Iterator[None]:
    """Hold a folder's lock: shared with other tests, or alone. The kernel frees a dead one's."""
    folder = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX if _is_alone(item) else fcntl.LOCK_SH)
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)  # closing would not do where a child has a copy
        os.close(folder)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None
