"""What the demo does, on every broker: two rules, and four producers who try them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shield.demo import Demo

QUOTA = 200
"""Messages a second, for each producer."""
BURST = 100
"""Enough that a producer within its quota stays so when its thread is held up for a moment."""

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


def rules_text(demo: Demo) -> str:
    """Return the rules as the shield.toml that the demo shows and loads."""
    return RULES.format(
        orders=demo.orders, overflow=demo.overflow, audit=demo.audit, quota=QUOTA, burst=BURST
    )


def settings(demo: Demo) -> dict[str, Any]:
    """Return the demo's settings; it enforces also where the environment says otherwise."""
    return {"shield": {"mode": "enforce"}, **tomllib.loads(rules_text(demo))}


@dataclass(frozen=True, slots=True)
class Part:
    """One producer: its name, what it does in words, the rule it meets, and its pace."""

    name: str
    does: str
    rule: str
    due: Callable[[float], int]
    """How many messages it wants to have sent so many seconds after the start."""


def _steady(rate: float) -> Callable[[float], int]:
    return lambda elapsed_s: int(rate * elapsed_s)


def _bursts(messages: int, every_s: float, first_s: float) -> Callable[[float], int]:
    return lambda elapsed_s: messages * int((elapsed_s + every_s - first_s) // every_s)


PARTS = (
    Part("greedy", "5x its quota", "orders", _steady(5 * QUOTA)),
    Part("bursty", "idle, then burst", "orders", _bursts(3 * QUOTA, 2.0, 0.5)),
    Part("modest", "within its quota", "orders", _steady(0.75 * QUOTA)),
    Part("patient", "2x, but may wait", "audit", _steady(2 * QUOTA)),
)
