"""The same trial in simulated time: two Shields, a broker that is read now and then, a consumer.

What the rule does by itself, without what a machine adds: it takes a second for ten, and the same
seed gives the same outcome.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.overload.clients import AT_ONCE
from benchmarks.overload.load import (
    BURST,
    CAPACITY,
    CLASSES,
    CRITICAL,
    DEADLINE_S,
    USERS,
    criticality,
)
from benchmarks.overload.rules import settings
from benchmarks.overload.trial import PRODUCERS, p99
from shield import BacklogTarget, End, Message, Permit, Shield, Signals, Watch
from shield.testing import ManualClock

SEND_S = 0.003
ANSWER_S = 0.001
READ_S = 0.004
COMMIT_S = {"kafka": 0.008, "rabbitmq": 0.0}
"""How long things take in the mean; each time it is half of that to one and a half."""
BEGIN_S = 1000.0


@dataclass
class Simulated:
    """What was measured after the first seconds: messages, and seconds from offer to the end."""

    offered: Counter[str] = field(default_factory=Counter)
    shed: Counter[str] = field(default_factory=Counter)
    in_time: int = 0
    critical_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    largest_backlog: int = 0

    @property
    def goodput_per_s(self) -> float:
        """Consumed within the deadline, a second."""
        return self.in_time / self.seconds

    @property
    def critical_p99_s(self) -> float:
        """What all but one of a hundred critical ones took at the most."""
        return p99(self.critical_s)

    def share_shed(self, name: str) -> float:
        """Which part of a class was shed."""
        return self.shed[name] / max(1, self.offered[name])


class _Backlogs:
    """What a producer's client knows of the broker."""

    origin = "simulated"

    def __init__(self) -> None:
        self.watches: dict[BacklogTarget, Watch] = {}

    def watch(self, place: BacklogTarget, every_s: float) -> Watch:
        return self.watches.setdefault(place, Watch(place, every_s))


class _Producer:
    """A Shield with the rule of the benchmark, and what its client knows."""

    def __init__(self, broker: str, clock: ManualClock, chance: random.Random) -> None:
        self.shield = Shield(settings(broker, "work"), clock=clock)
        for rule in self.shield.rules:
            for policy in rule.policies:
                policy.random = chance.random  # type: ignore[attr-defined] # both of them draw
        self.backlogs = _Backlogs()
        self.signals = Signals(clock.now)
        self.signals.backlogs = self.backlogs  # type: ignore[assignment] # as much of it as is used

    def admit(self, number: int, name: str) -> Permit | None:
        """Offer a message; None where it is shed."""
        headers = [("shield-criticality", name.encode()), ("user", b"%d" % (number % USERS))]
        key = b"user-%d" % (number % USERS)
        message = Message("work", 100, "bench", key, headers, None, self.signals)
        verdict = self.shield.admit(message)
        if isinstance(verdict, Permit):
            return verdict
        verdict.end(End.DROPPED)
        return None


class Simulation:
    """One load on one broker, with Shield, for so many seconds after the first two."""

    def __init__(self, broker: str, load: float, seconds: float, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self._clock = ManualClock(BEGIN_S)
        self._commit_s = COMMIT_S[broker]
        self._bursts_per_s = load * CAPACITY / PRODUCERS / ((1 + BURST) / 2)
        self._measured_s = BEGIN_S + 2.0
        self._end_s = self._measured_s + seconds
        self._producers = [_Producer(broker, self._clock, self._chance) for _ in range(PRODUCERS)]
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = self._number = self._arrived = self._committed = self._consumed = 0
        self._queue: deque[tuple[float, str]] = deque()
        self._is_busy = False
        self.found = Simulated(seconds=seconds)

    def run(self) -> Simulated:
        """Let time pass."""
        for producer in self._producers:
            self._later(0.0, self._offer, producer)
            self._later(0.05, self._read, producer)
        while self._events[0][0] < self._end_s:
            at_s, _, do, arguments = heapq.heappop(self._events)
            self._clock.advance(max(0.0, at_s - self._clock.now()))
            do(*arguments)
        return self.found

    def _later(self, seconds: float, do: Callable[..., None], *arguments: object) -> None:
        self._scheduled += 1
        at_s = self._clock.now() + seconds
        heapq.heappush(self._events, (at_s, self._scheduled, do, arguments))

    def _about(self, seconds: float) -> float:
        return seconds * self._chance.uniform(0.5, 1.5)

    def _is_measured(self) -> bool:
        return self._clock.now() >= self._measured_s

    def _offer(self, producer: _Producer) -> None:
        for _ in range(self._chance.randint(1, BURST)):
            name = criticality(self._number)
            permit = producer.admit(self._number, name)
            self._number += 1
            if permit is not None:
                self._later(self._about(SEND_S), self._arrive, permit, self._clock.now(), name)
            if self._is_measured():
                self.found.offered[name] += 1
                self.found.shed[name] += permit is None
        self._later(self._chance.expovariate(self._bursts_per_s), self._offer, producer)

    def _arrive(self, permit: Permit, offered_s: float, name: str) -> None:
        self._queue.append((offered_s, name))
        self._arrived += 1
        self._later(ANSWER_S, permit.delivered)
        if not self._is_busy:
            self._consume()

    def _consume(self) -> None:
        taken = min(AT_ONCE, len(self._queue))
        self._is_busy = taken > 0
        for number in range(taken):
            offered_s, name = self._queue.popleft()
            took_s = self._clock.now() + (number + 1) / CAPACITY - offered_s
            if self._is_measured():
                self.found.in_time += took_s <= DEADLINE_S
                if name in CRITICAL:
                    self.found.critical_s.append(took_s)
        if taken:
            self._later(taken / CAPACITY, self._done, taken)

    def _done(self, messages: int) -> None:
        self._consumed += messages
        self._later(self._about(self._commit_s), self._commit, self._consumed)
        self._consume()

    def _commit(self, consumed: int) -> None:
        self._committed = max(self._committed, consumed)

    def _read(self, producer: _Producer) -> None:
        waiting = self._arrived - self._committed
        self.found.largest_backlog = max(self.found.largest_backlog, waiting)
        self._later(self._about(READ_S), self._learn, producer, waiting)

    def _learn(self, producer: _Producer, waiting: int) -> None:
        every_s = 0.1
        for watch in producer.backlogs.watches.values():
            watch.learn(self._clock.now(), waiting)
            every_s = watch.every_s
        self._later(every_s * self._chance.uniform(0.8, 1.2), self._read, producer)


def main() -> None:
    """Print what each load comes to."""
    for broker in COMMIT_S:
        for load in (0.5, 1.0, 2.0, 5.0, 10.0):
            found = Simulation(broker, load, 10.0).run()
            shed = ", ".join(f"{found.share_shed(name):.1%}" for name in CLASSES)
            print(
                f"{broker:8} {load:4g}x: {found.goodput_per_s:5.0f} in time, critical p99 "
                f"{found.critical_p99_s * 1000:3.0f} ms, at most {found.largest_backlog} waiting, "
                f"shed {shed}"
            )


if __name__ == "__main__":
    main()
