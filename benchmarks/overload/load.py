"""What is offered: how much, how critical, and what each message carries."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

CAPACITY = 2000
"""What the consumer does a second, in messages."""
LOADS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""What is offered, in capacities; the first is the reference for latencies."""
DEADLINE_S = 1.0
"""A message that is consumed later than this after it was offered is of no use."""
BURST = 20
"""A request brings from one message to so many at once; requests come at random."""

CLASSES = ("critical-plus", "critical", "sheddable-plus", "sheddable")
PERCENT = {"critical-plus": 1, "critical": 4, "sheddable-plus": 25, "sheddable": 70}
"""Of a hundred messages; at ten times the capacity the critical ones are half of it."""
CRITICAL = frozenset(CLASSES[:2])
_STRIDE = 37
_NAMES = tuple(name for name, percent in PERCENT.items() for _ in range(percent))
USERS = 997

_BODY = struct.Struct("<dB")
PADDING = bytes(91)


def criticality(number: int) -> str:
    """Return that of the so-manieth message: the same mixture in any hundred."""
    return _NAMES[number * _STRIDE % len(_NAMES)]


def body(now: float, name: str) -> bytes:
    """Return a body of a hundred bytes that says when it was offered."""
    return _BODY.pack(now, CLASSES.index(name)) + PADDING


def read(raw: bytes) -> tuple[float, str]:
    """Return when a message was offered, and how critical it is."""
    offered_s, rank = _BODY.unpack_from(raw)
    return offered_s, CLASSES[rank]


@dataclass(frozen=True)
class Span:
    """When load begins, when it is measured, and when it ends; `time.monotonic` of the machine."""

    begin_s: float
    measured_s: float
    end_s: float

    def measures(self, at_s: float) -> bool:
        """Whether what happens then counts."""
        return self.measured_s <= at_s < self.end_s

    @property
    def length_s(self) -> float:
        """How long it is measured."""
        return self.end_s - self.measured_s


def due(
    span: Span,
    per_s: float,
    chance: random.Random,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[int]:
    """Yield how many messages are due, burst by burst; at once what has been missed, until the end.

    The gaps between bursts are exponential, so that bursts are a Poisson process: `per_s`
    messages a second in the mean.
    """
    bursts_per_s = per_s / ((1 + BURST) / 2)
    due_s = span.begin_s + chance.expovariate(bursts_per_s)
    while due_s < span.end_s and now() < span.end_s:
        ahead_s = due_s - now()
        if ahead_s > 0:
            sleep(ahead_s)
        yield chance.randint(1, BURST)
        due_s += chance.expovariate(bursts_per_s)
