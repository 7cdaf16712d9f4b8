"""Short ways to make what the core's tests need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shield import End, Event, Kind, Ledger, Message, OverLimit, Permit, Policy, Shield, hookimpl
from shield.config.plugin_checks import CAPABILITIES
from shield.testing import ManualClock

PARTS = {"pressure", "rejection_share", "delay_s"}
"""Methods of policies that say a number."""


def shield_with(*rules: dict[str, Any], plugins: Any = (), **settings: Any) -> Shield:
    """Return a Shield on a manual clock."""
    data = {"shield": settings, "rules": list(rules)}
    return Shield(data, plugins=plugins, clock=ManualClock())


def message(
    destination: str = "orders", size: int = 100, producer: str = "p", **more: Any
) -> Message:
    return Message(destination, size, producer, **more)


def permit(shield: Shield, *args: Any, **kwargs: Any) -> Permit:
    """Offer a message that must be admitted."""
    verdict = shield.admit(message(*args, **kwargs))
    assert isinstance(verdict, Permit), verdict
    return verdict


def over(shield: Shield, *args: Any, **kwargs: Any) -> OverLimit:
    """Offer a message that must be over the limit."""
    verdict = shield.admit(message(*args, **kwargs))
    assert isinstance(verdict, OverLimit), verdict
    return verdict


def admits(shield: Shield, *args: Any, **kwargs: Any) -> bool:
    """Offer a message; tell whether it was admitted."""
    return isinstance(shield.admit(message(*args, **kwargs)), Permit)


def counts(ledger: Ledger) -> dict[str, int]:
    """Return what a ledger counts, without its zeros; it must balance."""
    assert ledger.balanced
    names = ("offered", "in_flight", *map(str, End))
    return {name: getattr(ledger, name) for name in names if getattr(ledger, name)}


class Listening:
    """A plugin object that keeps what observers hear."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @hookimpl
    def shield_on_event(self, event: Event) -> None:
        self.events.append(event)

    def destinations(self, kind: Kind) -> list[str | None]:
        """Return where the messages of events of that kind were going."""
        return [e.message and e.message.destination for e in self.events if e.kind is kind]


LISTENING = Listening()
"""One that an entry point can name."""


class Kinds:
    """A plugin object that contributes policies, actions and resolvers."""

    def __init__(
        self,
        policies: Mapping[str, type[Policy]] | None = None,
        actions: Mapping[str, Any] | None = None,
        resolvers: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.policies = policies or {}
        self.actions = actions or {}
        self.resolvers = resolvers or {}

    @hookimpl
    def shield_policies(self) -> Mapping[str, type[Policy]]:
        return self.policies

    @hookimpl
    def shield_actions(self) -> Mapping[str, Any]:
        return self.actions

    @hookimpl
    def shield_resolvers(self) -> Mapping[str, Callable[..., Any]]:
        return self.resolvers


def policy_with(**methods: Any) -> type[Policy]:
    """Return a policy with these methods, and the capabilities that they belong to.

    What else these ask for says that nothing is wanted; so does `check`.
    """
    owners = {CAPABILITIES[name] for name in methods if name in CAPABILITIES}
    needed = {name for owner in owners for name in getattr(owner, "__abstractmethods__", ())}
    neutral = {name: _none if name not in PARTS else _zero for name in needed}
    sound = {"check": _none}
    return type("Made", (Policy, *owners), sound | neutral | methods)


def _none(*_arguments: object) -> None:
    return None


def _zero(*_arguments: object) -> float:
    return 0.0
