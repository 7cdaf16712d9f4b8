"""Controllers against a simulated broker: manual clock, no network, the real policies.

Each runs through a step, a ramp and a sine of load, through a broker that halves its capacity and
through one that stalls. `python -m benchmarks.simulate` prints the table.

(`refuses` is a step as well, for a broker that turns down what is too much, at a cost.)

The broker serves first come, first served, at so many messages a second, with a queue of its own:
an answer takes the network's time, and the time in that queue. One that stalls answers nothing
for five seconds, then goes on.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from shield import End, Message, Outcome, Permit, Shield, Signals
from shield.testing import ManualClock

TICK_S = 0.01
NETWORK_S = 0.02
CAPACITY = 1000.0
"""What the broker takes a second, in messages."""
LENGTH_S = 40.0
CHANGE_S = 20.0
"""When the load, or the broker, changes."""
STALL_S = 5.0
TURNED_DOWN = 0.3
"""What it costs the broker to turn a message down, as a part of what it costs to take it."""
TIMEOUT_S = 2.0
"""What has no answer by then has timed out, as clients do; the broker works on it all the same."""
GOOD_WITHIN_S = 1.0
"""An answer that takes longer is of no use to anyone."""
SETTLED = 0.2
"""By how much of its final value a controlled value may still differ when it has settled."""

Over = Callable[[float], float]

RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "adaptive aimd": {"adaptive": {"min": 20, "max": 1000}},
    "adaptive gradient2": {"adaptive": {"algorithm": "gradient2", "min": 20, "max": 1000}},
    "throttle": {"throttle": 2.0},
    "adaptive + shed": {"adaptive": {"min": 20, "max": 1000}, "shed": "priority"},
}
"""The controllers, as a rule has them."""


@dataclass(frozen=True)
class Scenario:
    """What is offered, and what the broker takes, a second; both by the time since the start."""

    offered: Over
    capacity: Over
    room: float = math.inf
    """How many the broker holds; it turns down what comes beyond, at once."""


def _is_stalled(at_s: float) -> bool:
    return CHANGE_S <= at_s < CHANGE_S + STALL_S


SCENARIOS: dict[str, Scenario] = {
    "step": Scenario(lambda s: CAPACITY * (3.0 if s >= CHANGE_S else 0.5), lambda _: CAPACITY),
    "ramp": Scenario(lambda s: CAPACITY * (0.5 + 2.5 * s / LENGTH_S), lambda _: CAPACITY),
    "sine": Scenario(
        lambda s: CAPACITY * (1.25 + 0.75 * math.sin(2 * math.pi * s / 10.0)), lambda _: CAPACITY
    ),
    "halved": Scenario(
        lambda _: CAPACITY * 1.5, lambda s: CAPACITY * (0.5 if s >= CHANGE_S else 1.0)
    ),
    "stall": Scenario(lambda _: CAPACITY * 0.8, lambda s: 0.0 if _is_stalled(s) else CAPACITY),
    "refuses": Scenario(
        lambda s: CAPACITY * (3.0 if s >= CHANGE_S else 0.5), lambda _: CAPACITY, room=500
    ),
}


@dataclass
class Trace:
    """What happened, tick by tick, and what was made of it."""

    limits: list[float] = field(default_factory=list)
    """The controlled value: the limit, or what was in flight where the policy has none."""
    good: int = 0
    """Answers in good time."""
    late: int = 0
    """Answers too late to be of use, refusals of the broker, and answers that never came."""
    refused: int = 0
    best: float = 0.0
    """Answers that could have been given in good time, with what was offered up to then."""

    @property
    def goodput(self) -> float:
        """Answers in good time, as a part of those possible."""
        return self.good / self.best

    @property
    def settling_s(self) -> float | None:
        """Time from the change until the value stays near its final one; None for never."""
        after = self.limits[int(CHANGE_S / TICK_S) :]
        final = self._final(after)
        off = [n for n, value in enumerate(after) if abs(value - final) > SETTLED * final]
        if not off:
            return 0.0
        tail = len(after) // 10
        return None if off[-1] >= len(after) - tail else round((off[-1] + 1) * TICK_S, 2)

    @property
    def overshoot(self) -> float:
        """How far beyond its final value it went after the change, as a part of that."""
        after = self.limits[int(CHANGE_S / TICK_S) :]
        final = self._final(after)
        before = self.limits[int(CHANGE_S / TICK_S) - 1]
        beyond = max(after) - final if final >= before else final - min(after)
        return max(0.0, beyond / final)

    @property
    def swing(self) -> float:
        """Range of the last quarter, as a part of its mean."""
        last = self.limits[-len(self.limits) // 4 :]
        return (max(last) - min(last)) / max(1.0, sum(last) / len(last))

    @staticmethod
    def _final(after: list[float]) -> float:
        last = after[-len(after) // 4 :]
        return max(1.0, sum(last) / len(last))


@dataclass(slots=True)
class _Sent:
    """One message with the broker, or on its way back."""

    permit: Permit
    at_s: float
    timed_out: bool = False


class Simulation:
    """One controller in one scenario."""

    def __init__(self, rule: dict[str, Any], scenario: Scenario, seed: int = 1) -> None:
        self._clock = ManualClock(0.0)
        self._scenario = scenario
        self._random = random.Random(seed)
        chosen = {"name": "simulated", "match": "*", "over_limit": "drop", **rule}
        self.shield = Shield({"rules": [chosen]}, clock=self._clock)
        for policy in self.shield.rules[0].policies:
            if hasattr(policy, "random"):
                policy.random = self._random.random
        self._signals = Signals(self._clock.now)
        self._queue: deque[_Sent] = deque()
        self._unanswered: deque[_Sent] = deque()
        self._to_offer = self._to_serve = self._ideal_queue = 0.0
        self.trace = Trace()

    def run(self) -> Trace:
        """Run to the end."""
        for tick in range(int(LENGTH_S / TICK_S)):
            at_s = tick * TICK_S
            self._offer(at_s)
            self._serve(at_s)
            self._time_out(at_s)
            self.trace.limits.append(self._controlled())
            self._clock.advance(TICK_S)
        self.trace.late += len(self._unanswered)
        return self.trace

    def _offer(self, at_s: float) -> None:
        offered = self._scenario.offered(at_s) * TICK_S
        served = min(self._ideal_queue + offered, self._scenario.capacity(at_s) * TICK_S)
        self._ideal_queue = min(self._ideal_queue + offered - served, CAPACITY * GOOD_WITHIN_S)
        self.trace.best += served
        self._to_offer += offered
        while self._to_offer >= 1.0:
            self._to_offer -= 1.0
            key = b"%d" % self._random.randrange(1000)
            verdict = self.shield.admit(Message("simulated", 100, key=key, signals=self._signals))
            if not isinstance(verdict, Permit):
                verdict.end(End.DROPPED)
                self.trace.refused += 1
            elif len(self._queue) >= self._scenario.room:
                self._to_serve -= TURNED_DOWN
                self.trace.late += 1
                verdict.settle(Outcome.OVERLOADED)
            else:
                sent = _Sent(verdict, at_s)
                self._queue.append(sent)
                self._unanswered.append(sent)

    def _serve(self, at_s: float) -> None:
        """Answer what the broker has come to, where it has been with the network."""
        once = self._scenario.capacity(at_s) * TICK_S
        self._to_serve = min(self._to_serve + once, once + 1.0)  # idle time is not made up for
        while self._to_serve >= 1.0 and self._queue and self._queue[0].at_s <= at_s - NETWORK_S:
            self._to_serve -= 1.0
            sent = self._queue.popleft()
            if not sent.timed_out:
                self._answered(sent, at_s)

    def _answered(self, sent: _Sent, at_s: float) -> None:
        took_s = at_s - sent.at_s
        self._signals.latency.add(self._clock.now(), took_s)
        sent.permit.settle(Outcome.DELIVERED)
        sent.timed_out = True
        if took_s <= GOOD_WITHIN_S:
            self.trace.good += 1
        else:
            self.trace.late += 1

    def _time_out(self, at_s: float) -> None:
        while self._unanswered and (
            self._unanswered[0].timed_out or self._unanswered[0].at_s < at_s - TIMEOUT_S
        ):
            sent = self._unanswered.popleft()
            if not sent.timed_out:
                sent.timed_out = True
                sent.permit.settle(Outcome.OVERLOADED)
                self.trace.late += 1

    def _controlled(self) -> float:
        status = self.shield.status()["simulated"]
        limit = status.get("adaptive", {}).get("limit")
        return float(self.shield.ledger().in_flight if limit is None else limit)


def simulate(controller: str, scenario: str) -> Trace:
    """Run one controller through one scenario, by their names."""
    return Simulation(RULES[controller], SCENARIOS[scenario]).run()


def table() -> list[dict[str, Any]]:
    """Return a line for each controller in each scenario; the same in every run."""
    lines = []
    for scenario in SCENARIOS:
        for controller in RULES:
            trace = simulate(controller, scenario)
            lines.append(
                {
                    "scenario": scenario,
                    "controller": controller,
                    "goodput": round(trace.goodput, 3),
                    "settling_s": trace.settling_s,
                    "overshoot": round(trace.overshoot, 3),
                    "swing": round(trace.swing, 3),
                    "late": trace.late,
                    "refused": trace.refused,
                }
            )
    return lines


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run every controller through every scenario; half a minute, no broker."""
    lines = table()
    if as_json:
        json.dump(lines, sys.stdout, indent=2)
        print()
        return
    shown = Table()
    for name in lines[0]:
        shown.add_column(name, justify="left" if name in {"scenario", "controller"} else "right")
    for line in lines:
        shown.add_row(*("never" if value is None else f"{value}" for value in line.values()))
    Console().print(shown)


if __name__ == "__main__":
    typer.run(main)
