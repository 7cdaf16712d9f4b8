"""What the demo does, on every broker: its rules, and the producers who try them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from shield.cli.demo.gauge import Gauge, fill_gauge, rate_gauge
from shield.demo import Demo
from shield.shield import Shield

QUOTA = 200
"""Messages a second, for each producer."""
BURST = 100
"""Enough that a producer within its quota stays so when its thread is held up for a moment."""
EVERY_S, FIRST_S, PEAK_S = 6.0, 0.5, 2.5
"""When a peak begins, and how long it lasts."""
FILL_S = 0.8
"""How long a peak takes to fill the queue."""

RULES = """\
[[rules]]
name = "orders"
match = "{orders}"
quota = {{ rate = "{quota}/s", burst = {burst}, per = "producer" }}
over_limit = ["overflow {overflow}"]

[[rules]]
name = "audit"
match = "{audit}"
quota = {{ rate = "{quota}/s", burst = {burst} }}
over_limit = ["wait 1s", "raise"]
"""
QUEUE_RULE = """
[[rules]]
name = "clicks"
match = "{clicks}"
client_queue = {{ messages = {bound} }}
over_limit = ["drop"]
"""


Due = Callable[[float, int, int], int]
"""Given the seconds since the start, and how many of its messages were sent and delivered."""


@dataclass(frozen=True, slots=True)
class Part:
    """One producer: its name, what it does in words, whose rule it meets, and its pace."""

    name: str
    does: str
    rule: str
    destination: str
    due: Due
    """How many messages it wants to have sent by now."""
    gauge: Gauge
    """What its limit is on, and how much that is."""


class Count(NamedTuple):
    """A number that ledger and broker must agree on: a rule's messages of one end, and where."""

    destination: str
    rule: str
    end: str


@dataclass(frozen=True, slots=True)
class Script:
    """All that is played on one broker."""

    rules: str
    """As the shield.toml that the demo shows and loads."""
    parts: tuple[Part, ...]
    counts: tuple[Count, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The rules as settings; they are enforced also where the environment says otherwise."""
        return {"shield": {"mode": "enforce"}, **tomllib.loads(self.rules)}


def script_for(demo: Demo[Shield]) -> Script:
    """Return what is played on this broker, which has been entered."""
    orders, audit, quota, queue = demo.orders, demo.audit, rate_gauge(QUOTA), demo.queue
    rules = RULES.format(
        orders=orders, overflow=demo.overflow, audit=audit, quota=QUOTA, burst=BURST
    )
    parts = (
        Part("greedy", "5x its quota", "orders", orders, _steady(5 * QUOTA), quota),
        Part("bursty", "idle, then burst", "orders", orders, _bursts(3 * QUOTA, 2.0, 0.5), quota),
        Part("modest", "within its quota", "orders", orders, _steady(0.75 * QUOTA), quota),
        Part("patient", "2x, but may wait", "audit", audit, _steady(2 * QUOTA), quota),
    )
    counts = (
        Count(orders, "orders", "delivered"),
        Count(demo.overflow, "orders", "overflowed"),
        Count(audit, "audit", "delivered"),
    )
    if queue is None:
        return Script(rules, parts, counts)
    bound = max(100, round(queue.per_second / 100) * 100)  # a second's worth
    clicks, gauge = queue.destination, fill_gauge(bound, queue.length)
    peaks = Part("peaks", "above the broker", "clicks", clicks, _peaks(bound), gauge)
    return Script(
        rules + QUEUE_RULE.format(clicks=clicks, bound=bound),
        (*parts, peaks),
        (*counts, Count(clicks, "clicks", "delivered")),
    )


def _steady(rate: float) -> Due:
    """Keep a pace; of what a held-up thread has missed, half a burst is made up for at the most."""
    given_up = 0

    def due(elapsed_s: float, sent: int, _delivered: int) -> int:
        nonlocal given_up
        wanted = int(rate * elapsed_s) - given_up
        too_late = max(0, wanted - sent - BURST // 2)
        given_up += too_late
        return wanted - too_late

    return due


def _bursts(messages: int, every_s: float, first_s: float) -> Due:
    return lambda elapsed_s, _sent, _delivered: (
        messages * int((elapsed_s + every_s - first_s) // every_s)
    )


def _peaks(bound: int) -> Due:
    """Outrun the broker by so much that the bound is reached in time, however fast that is."""
    behind: dict[float, int] = {}

    def due(elapsed_s: float, sent: int, delivered: int) -> int:
        number, within_s = divmod(elapsed_s - FIRST_S, EVERY_S)
        if number < 0 or within_s >= PEAK_S:
            return 0
        at_first = behind.setdefault(number, sent - delivered)
        return delivered + at_first + int(bound * within_s / FILL_S)

    return due
