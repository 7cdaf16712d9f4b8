"""For consumers: which messages have been here before, by the id they have from Shield."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from shield.headers import MESSAGE_ID, id_in
from shield.message import Message

Headers = Mapping[str, object] | Iterable[tuple[str, object]]


class HasHeaders(Protocol):
    """kafka-python's record, pika's properties, Shield's own message."""

    @property
    def headers(self) -> Headers | None:
        """Pairs or a mapping; None for none."""
        ...


class Deduplicator:
    """Remembers the last ids seen; a message that was set aside and came back twice is known.

    Only such messages have an id: what never left its way is never seen. It remembers within one
    process and so many ids; the oldest is forgotten first. Thread-safe.

    Args:
        max_ids: how many to remember; about 150 bytes each.

    Example:
        >>> fresh = Deduplicator(max_ids=10)
        >>> fresh.seen({"shield-message-id": "1"}), fresh.seen({"shield-message-id": "1"})
        (False, True)
    """

    def __init__(self, max_ids: int = 100_000) -> None:
        if type(max_ids) is not int or max_ids < 1:
            raise ValueError(f"max_ids: found {max_ids!r}; allowed is an int of 1 or more")
        self._max_ids = max_ids
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def seen(self, message: Headers | HasHeaders | None) -> bool:
        """Tell whether a message with this id was here before, and remember it.

        Args:
            message: a record or properties with `headers`, or the headers themselves.
        """
        found = _id_of(message)
        if found is None:
            return False
        with self._lock:
            there = found in self._ids
            self._ids[found] = None
            self._ids.move_to_end(found)
            if len(self._ids) > self._max_ids:
                self._ids.popitem(last=False)
        return there

    def forget(self, message: Headers | HasHeaders | None) -> None:
        """Take a message's id back: its processing failed, and it is to be processed again."""
        found = _id_of(message)
        with self._lock:
            self._ids.pop(found or "", None)

    def __len__(self) -> int:
        return len(self._ids)


def _id_of(message: Headers | HasHeaders | None) -> str | None:
    headers: Any = getattr(message, "headers", message)
    return id_in(Message("", 0, headers=headers).header(MESSAGE_ID))
