"""Controllers against a simulated broker: manual clock, no network, the real policies.

Each runs through a step, a ramp and a sine of load, through a broker that halves its capacity and
through one that stalls. `python -m benchmarks.simulate` prints the table.

(`refuses` is a step as well, for a broker that turns down what is too much, at a cost.)

Three in ten messages are critical, the others sheddable. Under `queue_delay` they go through a
client that has so many of them unconfirmed and keeps the others in the queue of the write thread
(`shield_rabbitmq`'s own); elsewhere a client writes all at once.

The broker serves first come, first served, at so many messages a second, with a queue of its own:
an answer takes the network's time, and the time in that queue. One that stalls answers nothing
for five seconds, then goes on.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from shield import End, Message, Outcome, Permit, Refusal, Shield, Signals
from shield.capabilities import LimitsSojourn
from shield.testing import ManualClock
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.connection.pending_publish import PendingPublish
from shield_rabbitmq.connection.send_queue import SendQueue

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
WINDOW = 50
"""How many messages a client that keeps a queue has with the broker at once."""
PARCEL = Frames("", "simulated", b"", None, mandatory=False)
CRITICALITIES = ["critical-plus"] + 2 * ["critical"] + 3 * ["sheddable-plus"] + 4 * ["sheddable"]
"""What ten messages in a row are."""
CRITICAL = {"critical-plus", "critical"}
SETTLED = 0.2
"""By how much of its final value a controlled value may still differ when it has settled."""

Over = Callable[[float], float]

RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "adaptive aimd": {"adaptive": {"min": 20, "max": 1000}},
    "adaptive gradient2": {"adaptive": {"algorithm": "gradient2", "min": 20, "max": 1000}},
    "throttle": {"probabilistic_throttle": 2.0},
    "adaptive + shed": {"adaptive": {"min": 20, "max": 1000}, "shed": "priority"},
    "in_flight + shed": {"in_flight": {"messages": 50}, "shed": "priority"},
    "queue_delay": {"queue_delay": {"target": "20ms", "interval": "400ms"}},
}
"""The controllers, as a rule has them.

`queue_delay` has a target of two ticks: what waits shorter than one is not seen to wait.
"""


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
    """How many were over the limit."""
    critical: int = 0
    """How many of what was offered were critical."""
    critical_refused: int = 0
    """How many of these were over the limit."""
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


class _Sent(PendingPublish):
    """One message that was admitted: in its client's queue, with the broker, or answered."""

    __slots__ = ("answered", "at_s", "permit")

    def __init__(self, permit: Permit, at_s: float) -> None:
        super().__init__(PARCEL)
        self.permit = permit
        self.at_s = self.written_at = at_s
        self.answered = False
        """Also where the client has given it up."""

    @property
    def waits(self) -> Hashable:
        return self.permit.waits

    def refusal(self, waited_s: float, now: float) -> Refusal | None:
        return self.permit.waited(waited_s, now)

    def newest_first(self, now: float) -> bool:
        return self.permit.flow.engine.newest_first(self.permit, now)

    def refuse(self, refusal: Refusal) -> None:
        over = self.permit.refuse(refusal)
        assert over is not None
        over.end(End.DROPPED)

    def finish(self, error: Exception | None) -> None:
        self.answered = True
        self.permit.settle(Outcome.DELIVERED if error is None else Outcome.OVERLOADED)


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
        keeps = any(isinstance(policy, LimitsSojourn) for policy in self.shield.rules[0].policies)
        self._waiting = SendQueue(self._signals) if keeps else None
        self._queue: deque[_Sent] = deque()
        self._unanswered: deque[_Sent] = deque()
        self._to_offer = self._to_serve = self._ideal_queue = 0.0
        self._criticalities = itertools.cycle(CRITICALITIES)
        self.trace = Trace()

    def run(self) -> Trace:
        """Run to the end."""
        for tick in range(int(LENGTH_S / TICK_S)):
            at_s = tick * TICK_S
            self._offer(at_s)
            self._write_on(at_s)
            self._serve(at_s)
            self._time_out(at_s)
            self.trace.limits.append(self._controlled())
            self._clock.advance(TICK_S)
        self.trace.late += len(self._unanswered) + len(self._waiting or ())
        return self.trace

    def _offer(self, at_s: float) -> None:
        offered = self._scenario.offered(at_s) * TICK_S
        served = min(self._ideal_queue + offered, self._scenario.capacity(at_s) * TICK_S)
        self._ideal_queue = min(self._ideal_queue + offered - served, CAPACITY * GOOD_WITHIN_S)
        self.trace.best += served
        self._to_offer += offered
        while self._to_offer >= 1.0:
            self._to_offer -= 1.0
            verdict = self.shield.admit(self._message())
            if not isinstance(verdict, Permit):
                verdict.end(End.DROPPED)
                self._refused(verdict.message)
            elif self._waiting is None:
                self._write(_Sent(verdict, at_s), at_s)
            else:
                self._waiting.append(_Sent(verdict, at_s))

    def _message(self) -> Message:
        key = b"%d" % self._random.randrange(1000)
        message = Message("simulated", 100, key=key, signals=self._signals)
        message.priority = next(self._criticalities)
        self.trace.critical += message.priority in CRITICAL
        return message

    def _refused(self, message: Message) -> None:
        self.trace.refused += 1
        self.trace.critical_refused += message.priority in CRITICAL

    # --- the client ---------------------------------------------------------------------------

    def _write(self, sent: _Sent, at_s: float) -> None:
        if len(self._queue) >= self._scenario.room:
            self._to_serve -= TURNED_DOWN
            self.trace.late += 1
            sent.finish(TimeoutError())
            return
        sent.written_at = at_s
        self._queue.append(sent)
        self._unanswered.append(sent)

    def _write_on(self, at_s: float) -> None:
        """Write from the queue while the window has room, and shed, as the write thread does."""
        if self._waiting is None:
            return
        while len(self._queue) < WINDOW:
            try:
                sent = self._waiting.next()
            except IndexError:
                break
            assert isinstance(sent, _Sent)
            self._write(sent, at_s)
        self._waiting.look()
        for sent, refusal in self._waiting.refused():
            assert isinstance(sent, _Sent)
            sent.refuse(refusal)
            self._refused(sent.permit.message)

    def _time_out(self, at_s: float) -> None:
        while self._unanswered and (
            self._unanswered[0].answered or self._unanswered[0].written_at < at_s - TIMEOUT_S
        ):
            sent = self._unanswered.popleft()
            if not sent.answered:
                sent.finish(TimeoutError())
                self.trace.late += 1

    # --- the broker ---------------------------------------------------------------------------

    def _serve(self, at_s: float) -> None:
        """Answer what the broker has come to, where it has been with the network."""
        once = self._scenario.capacity(at_s) * TICK_S
        self._to_serve = min(self._to_serve + once, once + 1.0)  # idle time is not made up for
        while (
            self._to_serve >= 1.0 and self._queue and self._queue[0].written_at <= at_s - NETWORK_S
        ):
            self._to_serve -= 1.0
            sent = self._queue.popleft()
            if not sent.answered:
                self._answered(sent, at_s)

    def _answered(self, sent: _Sent, at_s: float) -> None:
        self._signals.latency.add(self._clock.now(), at_s - sent.written_at)
        sent.finish(None)
        if at_s - sent.at_s <= GOOD_WITHIN_S:
            self.trace.good += 1
        else:
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
                    "critical_refused": round(trace.critical_refused / trace.critical, 3),
                }
            )
    return lines


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run every controller through every scenario; a minute, no broker."""
    lines = table()
    if as_json:
        json.dump(lines, sys.stdout, indent=2)
        print()
        return
    shown = Table(box=SIMPLE, padding=0, pad_edge=False)
    for name in lines[0]:
        names = name in {"scenario", "controller"}
        shown.add_column(name, justify="left" if names else "right", no_wrap=names, overflow="fold")
    for line in lines:
        shown.add_row(*("never" if value is None else f"{value}" for value in line.values()))
    Console().print(shown)


if __name__ == "__main__":
    typer.run(main)
