"""What the demo hears of: who waited, what was delivered, and from when to when it was shed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from shield.events import Event, Kind
from shield.hookspecs import hookimpl
from shield.verdict import Outcome

QUIET_S = 0.3
"""Without a drop for so long, shedding has ended."""


class Episode(NamedTuple):
    """One time of shedding, in seconds after the start; the last message so far was at `to_s`."""

    from_s: float
    to_s: float
    dropped: int

    def is_over(self, elapsed_s: float) -> bool:
        """Tell whether it had ended by then."""
        return elapsed_s - self.to_s > QUIET_S


class Observer:
    """A plugin as anyone could write it. Each value is written by one thread: a producer's.

    Args:
        elapsed_s: tells the seconds since the start.
    """

    def __init__(self, elapsed_s: Callable[[], float]) -> None:
        self._elapsed_s = elapsed_s
        self.waited: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.episodes: tuple[Episode, ...] = ()

    @hookimpl
    def shield_on_event(self, event: Event) -> None:
        """Hear of everything that happens, on whichever thread it does."""
        producer = event.message.producer if event.message is not None else ""
        if event.kind is Kind.SETTLED and event.detail == Outcome.DELIVERED:
            self.delivered[producer] += 1
        elif event.kind is Kind.WAITED:
            self.waited[producer] += 1
        elif event.kind is Kind.DROPPED:
            self.episodes = _one_more(self.episodes, self._elapsed_s())


def _one_more(episodes: tuple[Episode, ...], now: float) -> tuple[Episode, ...]:
    """Count a drop to the last episode, or to a new one."""
    if not episodes or episodes[-1].is_over(now):
        episodes += (Episode(now, now, 0),)
    *before, last = episodes
    return (*before, Episode(last.from_s, now, last.dropped + 1))


def told(episodes: tuple[Episode, ...], elapsed_s: float) -> Iterator[str]:
    """Yield what has happened as lines: each start, and each end once it is known."""
    for episode in episodes:
        yield f"{episode.from_s:>4.1f}s  the queue is over its limit: shedding starts"
        if episode.is_over(elapsed_s):
            yield f"{episode.to_s:>4.1f}s  shedding ends: {episode.dropped:,} dropped"
