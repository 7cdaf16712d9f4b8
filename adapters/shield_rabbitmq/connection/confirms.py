"""What was written and not yet confirmed, by delivery tag."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class UnconfirmedWindow(Generic[Item]):
    """Counts delivery tags as the broker does: the first message of a channel has tag 1."""

    def __init__(self) -> None:
        self._items: deque[Item | None] = deque()  # None: confirmed before an older one
        self._first = 1
        self._open = 0

    def __len__(self) -> int:
        return self._open

    def __iter__(self) -> Iterator[Item]:
        return (item for item in self._items if item is not None)

    def add(self, item: Item) -> None:
        """Give the next tag to what is being written."""
        self._items.append(item)
        self._open += 1

    def confirm(self, tag: int, multiple: bool) -> list[Item]:
        """Return what a confirm is about, oldest first: the one tag, or all up to it (0: all).

        A tag that is not open, as in a confirm of what was confirmed before, is about nothing.
        """
        if multiple:
            last = tag if tag else self._first + len(self._items) - 1
            return self._take_up_to(last)
        return self._take_one(tag)

    def clear(self) -> list[Item]:
        """Return all that is open, oldest first, and begin anew with tag 1."""
        items = list(self)
        self._items.clear()
        self._first, self._open = 1, 0
        return items

    def find(self, wanted: Callable[[Item], bool]) -> Item | None:
        """Return the oldest open item of which that is true."""
        return next((item for item in self if wanted(item)), None)

    def _take_up_to(self, last: int) -> list[Item]:
        taken: list[Item] = []
        items = self._items
        while items and self._first <= last:
            item = items.popleft()
            self._first += 1
            if item is not None:
                taken.append(item)
        self._open -= len(taken)
        self._drop_confirmed()
        return taken

    def _take_one(self, tag: int) -> list[Item]:
        at = tag - self._first
        if not 0 <= at < len(self._items) or self._items[at] is None:
            return []
        item = self._items[at]
        assert item is not None
        self._items[at] = None
        self._open -= 1
        self._drop_confirmed()
        return [item]

    def _drop_confirmed(self) -> None:
        items = self._items
        while items and items[0] is None:
            items.popleft()
            self._first += 1
