"""When the demo's messages were dropped: from when to when, and how many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shield.events import Event, Kind
from shield.hookspecs import hookimpl

QUIET_S = 0.3
"""Without a drop for so long, shedding has ended."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One time of shedding, in seconds after the start."""

    from_s: float
    to_s: float
    """When the last message so far was dropped."""
    dropped: int

    def is_over(self, elapsed_s: float) -> bool:
        """Tell whether it had ended by then."""
        return elapsed_s - self.to_s > QUIET_S


class Shedding:
    """A plugin as anyone could write it: hears of every message that is dropped.

    Args:
        elapsed_s: tells the seconds since the start.
    """

    def __init__(self, elapsed_s: Callable[[], float]) -> None:
        self._elapsed_s = elapsed_s
        self._episodes: list[Episode] = []

    @hookimpl
    def shield_on_event(self, event: Event) -> None:
        """Hear of everything that happens; one producer's thread alone has messages dropped."""
        if event.kind is not Kind.DROPPED:
            return
        now = self._elapsed_s()
        last = self._episodes[-1] if self._episodes else None
        if last is None or last.is_over(now):
            self._episodes.append(Episode(now, now, 1))
        else:
            self._episodes[-1] = Episode(last.from_s, now, last.dropped + 1)

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """All so far, oldest first."""
        return tuple(self._episodes)


def told(episodes: tuple[Episode, ...], elapsed_s: float) -> Iterator[str]:
    """Yield what has happened as lines: each start, and each end once it is known."""
    for episode in episodes:
        yield f"{episode.from_s:>4.1f}s  the queue is over its limit: shedding starts"
        if episode.is_over(elapsed_s):
            yield f"{episode.to_s:>4.1f}s  shedding ends: {episode.dropped:,} dropped"
