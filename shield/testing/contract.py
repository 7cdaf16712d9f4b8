"""What the contracts of policies and actions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shield.errors import SettingsError
from shield.hookspecs import hookimpl
from shield.message import Message
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


def problems_of(settings: dict[str, Any], plugins: Sequence[object]) -> tuple[str, ...]:
    """Return what is wrong with settings; AssertionError where nothing is."""
    try:
        Shield(settings, plugins=plugins)
    except SettingsError as error:
        return error.problems
    raise AssertionError(f"these settings were taken: {settings}")
