"""How long, and how much, a place on a broker keeps: what is set aside there must outlive that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DAY_S = 86_400.0
_UNITS = ((DAY_S, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))


@dataclass(frozen=True, slots=True)
class Retention:
    """What a place keeps; None, or False, where nothing bounds it.

    Args:
        for_s: seconds, after which a message may go.
        messages: how many, beyond which one goes, or is refused.
        size: bytes, beyond which one goes, or is refused.
        latest_only: of each key the latest alone, as a compacted topic.
        unused_s: seconds without a consumer, after which the place itself goes with all it has.
        stamped: whether the time counts from when a message is written there, and not from the
            timestamp that it brings along.
    """

    for_s: float | None = None
    messages: int | None = None
    size: int | None = None
    latest_only: bool = False
    unused_s: float | None = None
    stamped: bool = True

    def __str__(self) -> str:
        return ", ".join(self._parts()) or "for ever"

    def _parts(self) -> Iterator[str]:
        if self.for_s is not None:
            yield f"for {spelled(self.for_s)}"
        if self.messages is not None:
            yield f"{self.messages} messages"
        if self.size is not None:
            yield f"{self.size} bytes"
        if self.latest_only:
            yield "the latest of each key"
        if self.unused_s is not None:
            yield f"while used every {spelled(self.unused_s)}"

    def warnings(self, least_s: float) -> Iterator[str]:
        """Yield how messages may go that nobody has brought back, within that time or at all."""
        if self.for_s is not None and self.for_s < least_s:
            yield f"keeps messages for {spelled(self.for_s)}: what is there for longer is gone"
        if self.latest_only:
            yield "is compacted: of each key all but the latest is gone"
        if self.messages is not None or self.size is not None:
            yield f"keeps {self._bounds()}: what is beyond is gone, or refused"
        if self.unused_s is not None:
            yield f"goes with all it holds when nobody has used it for {spelled(self.unused_s)}"

    def _bounds(self) -> str:
        both = (f"{self.messages} messages", self.messages), (f"{self.size} bytes", self.size)
        return " and ".join(text for text, bound in both if bound is not None)

    def loses_at_once(self, timestamp_ms: int | None, now_ms: float) -> bool:
        """Tell whether what is written with that timestamp may be deleted as soon as it is."""
        if self.stamped or self.for_s is None or timestamp_ms is None:
            return False
        return now_ms - timestamp_ms > self.for_s * 1000


def spelled(seconds: float) -> str:
    """Return a time as people write it: `7d`, `90m`, `0.5s`."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"
