"""A bounded consumer under up to ten times what it can do, bare against Shield, on real brokers.

The consumer does 2,000 messages a second, by the clock. Two producers, each a process of its own,
offer half, once, twice, five and ten times that, in bursts of 1 to 20 at random moments, the same
ones to both sides, with four criticalities. The bare side is kafka-python, and pika without
confirms. With Shield the producers have a rule with `backlog`, held at some ten milliseconds' worth
of messages, and `shed = "priority"`. Measured is what happens after some seconds, when each side
has found its balance: messages consumed within a second of being offered (goodput), and how long
the critical ones took from the offer until they were consumed. Whatever was offered, also before
that, is at the end consumed, shed, or in the broker: counted there, to the message, and beside the
ledgers.

The consumer makes up for what the machine keeps from it while messages wait, so that a busy machine
costs latency and not capacity; the latencies of both loads that are compared have that in them.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measure import Effort, Noise, Report, Result, stderr, versions_of
from benchmarks.overload import picture
from benchmarks.overload.load import CAPACITY, CLASSES, LOADS
from benchmarks.overload.trial import BARE, SHIELD, SIDES, Outcome, Trial
from benchmarks.overload.trial import run as run_trial
from integration.brokers import KAFKA, RABBITMQ, shared

KINDS = {"kafka": KAFKA, "rabbitmq": RABBITMQ}
CROWDED = 5.0
"""The load that the aims are about."""
LEAST_GOODPUT = 0.95
MOST_P99 = 2.0
MOST_BACKLOG_S = 1.0
PICTURE = Path(__file__).parents[2] / "docs" / "overload.png"


def run(effort: Effort) -> Report:
    """Try every load on every broker with both sides; draw the picture where it is no quick run."""
    noise = Noise()
    outcomes: list[Outcome] = []
    with ExitStack() as running:
        brokers = {name: running.enter_context(shared(kind)) for name, kind in KINDS.items()}
        for trial in trials(effort):
            noise.sample()
            stderr.print(f"overload: {trial}, {trial.seconds:g} s", style="dim")
            outcomes.append(run_trial(trial, brokers[trial.broker].address))
            stderr.print(f"          {_short(outcomes[-1])}", style="dim", highlight=False)
        ways = ", ".join(f"{name} {broker.way}" for name, broker in brokers.items())
    picture.draw(outcomes, PICTURE if not effort.quick else Path(os.devnull))
    return report(outcomes, noise, ways)


def trials(effort: Effort) -> list[Trial]:
    """Return all of them; the two sides stand side by side."""
    seconds, settle_s = effort.of(60, 2), effort.of(8, 1)
    loads = (0.5, CROWDED) if effort.quick else LOADS
    return [
        Trial(broker, side, load, seconds, settle_s)
        for broker in KINDS
        for load in loads
        for side in SIDES
    ]


def report(outcomes: list[Outcome], noise: Noise, ways: str) -> Report:
    """Return what the trials came to, and whether the aims were reached."""
    results = [line for one in outcomes for line in _lines(one, _unloaded(outcomes, one))]
    lowest = min(
        one.goodput_per_s / CAPACITY
        for one in outcomes
        if one.trial.side == SHIELD and _is_aim(one)
    )
    return Report(
        name="overload",
        results=results,
        ratio=lowest,
        ratio_of=f"goodput at {CROWDED:g}x over the capacity, with Shield, of the worse broker",
        target=f"with Shield at {CROWDED:g}x: goodput at least {LEAST_GOODPUT:g} of the capacity, "
        f"p99 of critical messages below {MOST_P99:g} times that at {LOADS[0]:g}x, "
        f"never more than {MOST_BACKLOG_S:g} s of messages waiting",
        noise=noise.relative,
        versions=versions_of("kafka-python", "pika"),
        notes=[
            f"brokers: {ways}; the consumer does {CAPACITY:,} messages a second",
            *(_account(one) for one in outcomes),
        ],
    )


def _lines(one: Outcome, unloaded: Outcome) -> list[Result]:
    goodput = Result(f"{one.trial}, goodput", one.goodput_per_s, "messages/s")
    goodput.ratio, goodput.ratio_to = one.goodput_per_s / CAPACITY, "capacity"
    latency = Result(f"{one.trial}, critical p99", one.critical_p99_s * 1000, "ms")
    latency.ratio = one.critical_p99_s / unloaded.critical_p99_s
    latency.ratio_to = str(unloaded.trial)
    backlog = Result(f"{one.trial}, largest backlog", one.largest_backlog, "messages")
    if one.trial.side == SHIELD and _is_aim(one):
        goodput.aims(goodput.ratio, at_least=LEAST_GOODPUT)
        latency.aims(latency.ratio, below=MOST_P99)
        backlog.aims(backlog.value, below=MOST_BACKLOG_S * CAPACITY)
    return [goodput, latency, backlog]


def _is_aim(one: Outcome) -> bool:
    return one.trial.load == CROWDED


def _unloaded(outcomes: list[Outcome], one: Outcome) -> Outcome:
    """Return the same side of the same broker under the lowest load."""
    same = (
        o for o in outcomes if (o.trial.broker, o.trial.side) == (one.trial.broker, one.trial.side)
    )
    return min(same, key=lambda other: other.trial.load)


def _short(one: Outcome) -> str:
    return (
        f"{one.goodput_per_s:,.0f} of {one.offered_per_s:,.0f} a second in time; "
        f"critical p99 {one.critical_p99_s * 1000:,.0f} ms; "
        f"at the most {one.largest_backlog:,} waiting"
    )


def _account(one: Outcome) -> str:
    shed = ", ".join(f"{name} {one.shed[name]:.1%}" for name in CLASSES)
    return (
        f"{one.trial}: {one.offered:,} offered = {one.consumed:,} consumed + {one.dropped:,} shed "
        f"+ {one.left:,} in the broker; shed of each: {shed}"
    )


__all__ = ["BARE", "SHIELD", "Outcome", "Trial", "report", "run", "trials"]
