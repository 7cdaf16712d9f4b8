"""What a broker tells one client, directly or by how it answers; what policies may decide by.

A client's adapter owns one `Signals` for each connection, writes it as the broker speaks, and
hands it to policies with each message (`message.signals`). Reading costs an attribute access.
Nothing is polled, and what is not known is None, never zero.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from shield.backlog import Backlogs

WINDOW_S = 10.0
"""How long an answer is recent."""
SLICE_S = 1.0
BASELINE_S = 300.0
"""For how long, at least, the lowest latency seen is the baseline."""
WEIGHT = 0.125
"""Of a new sample in the recent latency, as of a round trip in TCP's (RFC 6298)."""

AnswerKind = Literal["nacks", "returns"]


class Signals:
    """One connection's signals, written by its adapter and read by policies on any thread.

    Args:
        now: monotonic seconds, by the clock of the Shield that decides.
        changed: lets those who wait ask again; the adapter calls it after a change that may end a
            refusal. `Shield.signals_changed` is the one.
    """

    __slots__ = (
        "__weakref__",
        "_lock",
        "answers",
        "backlogs",
        "blocked",
        "changed",
        "in_flight",
        "latency",
        "now",
        "queue_bytes",
        "queue_messages",
        "queue_s",
        "requests",
        "throttle_s",
        "throttled_until",
        "waits_since",
        "window_used",
    )

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.now = now
        self.changed = changed
        self.blocked: bool | None = None
        """Whether the broker has said that it takes nothing for now; None while not connected."""
        self.in_flight: int | None = None
        """How many messages are on the wire and not answered."""
        self.window_used: float | None = None
        """Which part, 0 to 1, of what may be on the wire and not answered is in use."""
        self.queue_messages: int | None = None
        """How many messages wait in the client's own queue to be written."""
        self.queue_bytes: int | None = None
        """How many bytes of them."""
        self.queue_s: float | None = None
        """How long what was sent last had waited in the client's queue or batch, in seconds."""
        self.waits_since: float | None = None
        """Since when the oldest of what waits in the client's queue could have been sent.

        In monotonic seconds; None while nothing waits, and where that is not known.
        """
        self.requests: int | None = None
        """How many requests are on the wire and not answered, of a client that sends batches."""
        self.throttle_s: float | None = None
        """For how long the broker's last answer has told the client to hold back; 0 for not."""
        self.throttled_until: float | None = None
        """Until when that is, in monotonic seconds."""
        self.backlogs: Backlogs | None = None
        """What reads how much waits at this client's broker; None where the client cannot."""
        self.answers = AnswerCounts()
        """What the broker has answered recently."""
        self.latency = Latency()
        """How long it has taken to answer."""
        self._lock = threading.Lock()

    def queued(self, messages: int, size: int) -> None:
        """Count messages into the client's queue, or out of it with numbers below zero."""
        with self._lock:
            self.queue_messages = (self.queue_messages or 0) + messages
            self.queue_bytes = (self.queue_bytes or 0) + size


class AnswerSlice:
    """The answers of one second."""

    __slots__ = ("answers", "nacks", "returns", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.answers = self.nacks = self.returns = 0


class AnswerCounts:
    """Counts of the last ten seconds' answers, in slices of one second.

    One thread counts, any may read: a tuple of slices is replaced as a whole.
    """

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: tuple[AnswerSlice, ...] = ()

    def count(self, now: float, answers: int, nacks: int = 0, returns: int = 0) -> None:
        """Count so many answers, of which so many were nacks and so many returns."""
        slices = self._slices
        if not slices or now - slices[-1].start >= SLICE_S:
            slices = self._slices = (*self._recent(now), AnswerSlice(now))
        newest = slices[-1]
        newest.answers += answers
        newest.nacks += nacks
        newest.returns += returns

    def share(self, kind: AnswerKind, now: float, minimum: int = 1) -> float | None:
        """Return which part of the recent answers was of a kind; None for fewer than `minimum`."""
        recent = self._recent(now)
        answers = sum(each.answers for each in recent)
        if not answers or answers < minimum:
            return None
        found: int = sum(getattr(each, kind) for each in recent)
        return found / answers

    def above_for_s(self, kind: AnswerKind, above: float, minimum: int, now: float) -> float:
        """Return how long the share stays above a limit if no more answers come; 0 if it is not."""
        recent = self._recent(now)
        answers = sum(each.answers for each in recent)
        found: int = sum(getattr(each, kind) for each in recent)
        above_until = now
        for oldest in recent:
            if answers < minimum or found <= above * answers:
                break
            answers -= oldest.answers
            found -= getattr(oldest, kind)
            above_until = oldest.start + WINDOW_S
        return above_until - now

    def _recent(self, now: float) -> tuple[AnswerSlice, ...]:
        return tuple(each for each in self._slices if each.start + WINDOW_S > now)


class Latency:
    """Seconds from writing a message to its answer: recently, and at best.

    The baseline is a slow minimum, the lowest sample of the last five to ten minutes, so that
    what is normal for this broker and network need not be configured. It follows a load that
    never lets up: after ten minutes at three times the old latency that is the new baseline.
    """

    __slots__ = ("_before", "_lowest", "_sampled_at", "_turn", "baseline", "recent")

    def __init__(self) -> None:
        self.recent: float | None = None
        """Moving average of the samples, in seconds."""
        self.baseline: float | None = None
        """The lowest one of five to ten minutes."""
        self._before = self._lowest = float("inf")
        self._turn = self._sampled_at = float("-inf")

    def add(self, now: float, sample_s: float) -> None:
        """Take a sample."""
        idle = now - self._sampled_at >= WINDOW_S
        if self.recent is None or idle:
            self.recent = sample_s
        else:
            self.recent += WEIGHT * (sample_s - self.recent)
        self._sampled_at = now
        if now >= self._turn:
            self._before, self._lowest = self._lowest, sample_s
            self._turn = now + BASELINE_S
        elif sample_s < self._lowest:
            self._lowest = sample_s
        self.baseline = min(self._before, self._lowest)

    def over_baseline(self, now: float) -> float | None:
        """Return the recent latency as a multiple of the baseline; None without recent samples."""
        if not self.recent or not self.baseline or now - self._sampled_at >= WINDOW_S:
            return None
        return self.recent / self.baseline
