"""What the contracts share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from shield.clock import Clock
from shield.config.registry import Registry, installed
from shield.errors import PluginResultError, SettingsError
from shield.hookspecs import hookimpl
from shield.message import Message
from shield.plugin_results import shown
from shield.policy import Policy
from shield.shield import Shield
from shield.signals import Signals
from shield.verdict import Refusal

ODD_MESSAGES: tuple[Callable[[], Message], ...] = (
    lambda: Message("", 0),
    lambda: Message("orders", 0, "", b""),
    lambda: Message("orders", 1, "p", b"\xff\x00", {"tenant": b"\xff"}),
    lambda: Message("orders", 1, "p", None, [("tenant", b"a"), ("tenant", None), ("n", 5)]),
    lambda: Message("exchange/routing.key", 1, "p", None, {"tenant": 5}, "routing.key"),
    lambda: Message("orders", 1, "p", signals=Signals()),
    lambda: Message("orders", 1, "p", signals=_in_trouble()),
    lambda: Message("d" * 10_000, 10**12, "\N{SNOWMAN}\n", b"k" * 10_000),
)
"""Messages as clients really make them, far from the ordinary."""


def _in_trouble() -> Signals:
    """Return the signals of a connection that has every trouble there is."""
    signals = Signals()
    signals.blocked = True
    signals.in_flight, signals.window_used = 10**9, 1.0
    signals.queued(10**9, 10**15)
    now = signals.now()
    signals.answers.count(now, 10**6, nacks=10**6, returns=10**6)
    signals.latency.add(now, 0.001)
    signals.latency.add(now, 1000.0)
    return signals


class AdmitNothing(Policy):
    """The policy and plugin `admit_nothing`: every message is over its limit, for an hour."""

    def check(self, message: Message, now: float) -> Refusal:
        """Refuse."""
        return self.refuse("nothing is admitted", 3600.0)

    @staticmethod
    @hookimpl
    def shield_policies() -> Mapping[str, type[Policy]]:
        """Contribute `admit_nothing`."""
        return {"admit_nothing": AdmitNothing}


def shield_of(
    rule: dict[str, Any], plugins: Sequence[object], clock: Clock | None = None
) -> Shield:
    """Return a Shield with one rule, also where the plugins under test are installed."""
    settings = {"rules": [rule], "plugins": {"disable": _installed_twins(plugins)}}
    return Shield(settings, plugins=plugins, clock=clock)


def registry_of(plugins: Sequence[object]) -> Registry:
    """Return what plugins contribute, also where they are installed."""
    return Registry(plugins, _installed_twins(plugins))


def problems_of(rule: dict[str, Any], plugins: Sequence[object]) -> tuple[str, ...]:
    """Return what is wrong with a rule; AssertionError where nothing is."""
    try:
        shield_of(rule, plugins)
    except SettingsError as error:
        return error.problems
    raise AssertionError(f"expected a SettingsError, came nothing: {rule} was taken")


def _installed_twins(plugins: Sequence[object]) -> list[str]:
    """Return the entry points that contribute what the plugins under test do: those are tested."""
    if not plugins:
        return []
    own = Registry(plugins, points=()).names
    return [point.name for point in installed() if own & _names_of(point)]


@cache
def _names_of(point: EntryPoint) -> frozenset[tuple[str, str]]:
    return Registry(points=(point,)).names


# --- what was expected, and what came -----------------------------------------------------------


Read = TypeVar("Read")


def expect(right: bool, expected: str, came: object) -> None:
    """Raise an AssertionError that says both, unless it is right."""
    __tracebackhide__ = True
    if not right:
        text = came if isinstance(came, str) else shown(came)
        raise AssertionError(f"expected {expected}, came {text}")


def expect_kind(value: object, kind: type[Read]) -> Read:
    """Return what is of that kind."""
    __tracebackhide__ = True
    if not isinstance(value, kind):
        raise AssertionError(f"expected {kind.__name__}, came {shown(value)}")
    return value


def expect_readable(read: Callable[[], Read]) -> Read:
    """Return what a Shield reads of a plugin's answer; it would count another as an error."""
    __tracebackhide__ = True
    try:
        return read()
    except PluginResultError as error:
        raise AssertionError(f"expected what is allowed there, came another: {error}") from None


PATIENCE_S = 20.0
"""How long what ends on other threads, or at a broker, may take."""


def eventually(is_so: Callable[[], bool]) -> bool:
    """Tell whether it is so, or comes to be so in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_so()
