"""Objects that one container alone refers to, told by their reference counts."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def unheld(items: Collection[Item]) -> Iterator[Item]:
    """Yield what a container alone refers to."""
    if ALONE not in map(sys.getrefcount, items):
        return
    for item in list(items):
        if sys.getrefcount(item) == IN_TWO:
            yield item


def _counts() -> tuple[int, int]:
    """Return how often what only a container refers to is counted: in `map`, and in the loop."""
    items = {object()}
    (in_map,) = map(sys.getrefcount, items)
    for item in list(items):
        in_loop = sys.getrefcount(item)
    return in_map, in_loop


ALONE, IN_TWO = _counts()
