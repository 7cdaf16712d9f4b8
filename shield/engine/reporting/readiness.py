"""How near a Shield is to refusing, for those who can slow down before it does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Iterator

from shield.clock import Clock
from shield.engine.policy_set import PolicySet
from shield.errors import ShieldError
from shield.message import Message
from shield.policy import Policy
from shield.rule import Rule
from shield.settings_model import nearest

LOOK_EVERY_S = 0.05
Measure = Callable[[Policy, Message], float]


def rules_named(rules: Collection[Rule], name: str | None) -> list[Rule]:
    """Return the rule of that name; without one, all that are enforced.

    Raises:
        ShieldError: no rule has that name.
    """
    if name is None:
        return [rule for rule in rules if not rule.shadow]
    found = [rule for rule in rules if rule.name == name]
    if not found:
        raise ShieldError(f"no rule {name!r}; {nearest(name, [rule.name for rule in rules])}")
    return found


def highest(rules: Iterable[Rule], flows: Iterable[PolicySet], measure: Measure) -> float:
    """Return the highest pressure of the rules' policies on the messages that came last."""
    policies = {policy for rule in rules for policy in rule.policies}
    return max(_pressures(policies, flows, measure), default=0.0)


def _pressures(
    policies: Collection[Policy], flows: Iterable[PolicySet], measure: Measure
) -> Iterator[float]:
    for flow in flows:
        if flow.last is not None:
            for policy in flow.policies:
                if policy in policies:
                    yield measure(policy, flow.last)


def wait_until_below(
    pressure: Callable[[], float], below: float, timeout_s: float | None, clock: Clock
) -> bool:
    """Block until the pressure is below that; False where the time was over first."""
    until = None if timeout_s is None else clock.now() + timeout_s
    never = threading.Event()
    while pressure() >= below:
        left_s = LOOK_EVERY_S if until is None else until - clock.now()
        if left_s <= 0.0:
            return False
        clock.wait(never, min(LOOK_EVERY_S, left_s))
    return True


async def until_below(
    pressure: Callable[[], float], below: float, timeout_s: float | None, clock: Clock
) -> bool:
    """Wait as `wait_until_below`, without blocking the loop."""
    until = None if timeout_s is None else clock.now() + timeout_s
    while pressure() >= below:
        left_s = LOOK_EVERY_S if until is None else until - clock.now()
        if left_s <= 0.0:
            return False
        await asyncio.sleep(min(LOOK_EVERY_S, left_s))
    return True
