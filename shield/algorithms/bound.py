"""A bound on what is outstanding: so many messages, so many bytes."""

from __future__ import annotations


class Bound:
    """Counts what is outstanding against two limits. Not locked.

    An item larger than all the bytes allowed passes while nothing is outstanding, so that it is
    never refused for ever.
    """

    __slots__ = ("max_bytes", "max_messages", "messages", "size")

    def __init__(self, max_messages: int | None, max_bytes: int | None) -> None:
        self.max_messages = float("inf") if max_messages is None else max_messages
        self.max_bytes = float("inf") if max_bytes is None else max_bytes
        self.messages = 0
        self.size = 0

    def exceeded_by(self, size: int) -> str | None:
        """Return which limit one more item of `size` bytes would exceed, or None."""
        if self.messages >= self.max_messages:
            return "messages"
        if self.size + size > self.max_bytes and self.messages:
            return "bytes"
        return None

    @property
    def used(self) -> float:
        """Return which part of it is in use: the larger of the two."""
        return max(self.messages / self.max_messages, self.size / self.max_bytes)

    def take(self, size: int) -> None:
        """Count one more."""
        self.messages += 1
        self.size += size

    def release(self, size: int, messages: int = 1) -> None:
        """Count so many less."""
        self.messages -= messages
        self.size -= size
