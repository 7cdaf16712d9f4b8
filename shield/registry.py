"""Finds plugins and gathers what they contribute; nothing here runs per message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from shield import hookspecs
from shield.errors import PluginError
from shield.strict import nearest

if TYPE_CHECKING:
    from shield.action import Action
    from shield.demo import Demo
    from shield.policy import KeyOf, Policy
    from shield.settings import ShieldSettings
    from shield.setup import Setup
    from shield.transport import Transport

log = logging.getLogger("shield")
GROUP = "shield"
Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One line of `shield plugins`."""

    name: str
    version: str
    distribution: str
    hooks: tuple[str, ...]
    state: str = "on"
    """`on`, `off` where settings disable it, or why it could not be loaded."""


class Registry:
    """The plugins of one Shield, and the kinds they contribute by name.

    Args:
        plugins: plugin objects or modules beside those that entry points name.
        disable: names of entry points to leave out.
        points: entry points to load, where not all that are installed.

    Raises:
        PluginError: two plugins claim one name, or one has a hook that does not exist.
    """

    model: type[ShieldSettings] | None = None
    """All settings with the keys of these kinds, once `shield.settings` has made it."""

    def __init__(
        self,
        plugins: Iterable[object] = (),
        disable: Iterable[str] = (),
        points: Iterable[metadata.EntryPoint] | None = None,
    ) -> None:
        self.extra = tuple(plugins)
        self.disabled = frozenset(disable)
        self.infos: list[PluginInfo] = []
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        for point in _entry_points() if points is None else points:
            self._add_entry_point(point)
        for plugin in self.extra:
            self._add(plugin, getattr(plugin, "__name__", type(plugin).__name__), "", "")
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"a plugin has a hook that does not exist: {error}") from error
        self.policies: dict[str, type[Policy]] = self._gather("shield_policies")
        self.actions: dict[str, type[Action]] = self._gather("shield_actions")
        self.resolvers: dict[str, Callable[[str | None], KeyOf]] = self._gather("shield_resolvers")
        self.transports: dict[str, type[Transport]] = self._gather("shield_transports")
        self.demos: dict[str, Callable[[str | None], Demo]] = self._gather("shield_demos")
        self.setups: dict[str, Callable[[str | None, int | None], Setup]] = self._gather(
            "shield_setups"
        )

    def _add_entry_point(self, point: metadata.EntryPoint) -> None:
        name, version = _name_and_version(point.dist)
        if point.name in self.disabled:
            self.infos.append(PluginInfo(point.name, version, name, (), "off"))
            return
        try:
            plugin = _load(point)
        except Exception as error:
            log.warning("plugin %s (%s) cannot be loaded: %r", point.name, name, error)
            reason = f"cannot be loaded: {error!r}"
            self.infos.append(PluginInfo(point.name, version, name, (), reason))
            return
        self._add(plugin, point.name, version, name)

    def _add(self, plugin: object, name: str, version: str, distribution: str) -> None:
        try:
            self._manager.register(plugin, name if distribution else None)
        except (ValueError, pluggy.PluginValidationError) as error:
            raise PluginError(f"plugin {name!r} cannot be registered: {error}") from error
        hooks = sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ())
        self.infos.append(PluginInfo(name, version, distribution, tuple(hooks)))

    def _gather(self, hook: str) -> dict[str, Any]:
        """Merge the mappings that plugins return; a name claimed twice is an error."""
        found: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            kinds: Mapping[str, Any] = implementation.function()
            for name, kind in kinds.items():
                if name in found:
                    raise PluginError(
                        f"{hook}: {name!r} comes from both plugin {owners[name]!r} and plugin "
                        f"{implementation.plugin_name!r}; disable one under [plugins]"
                    )
                found[name], owners[name] = kind, implementation.plugin_name
        return found

    def resolver(self, per: str) -> KeyOf:
        """Return how to find the key that `per` names; ValueError where nothing does."""
        name, colon, argument = per.partition(":")
        resolver = self.resolvers.get(name)
        if resolver is None:
            raise ValueError(
                f"per: found {per!r}; unknown key; {nearest(name, list(self.resolvers))}"
            )
        try:
            return resolver(argument if colon else None)
        except ValueError as error:
            raise ValueError(f"per: found {per!r}; {error}") from None

    def transport(self, scheme: str) -> type[Transport]:
        """Return what sends to URLs of that scheme; ValueError where nothing does."""
        if scheme not in self.transports:
            raise ValueError(f"unknown scheme {scheme!r}; {nearest(scheme, list(self.transports))}")
        return self.transports[scheme]

    def implementations(self, hook: str) -> tuple[Callable[..., Any], ...]:
        """Return who implements a per-message hook, first registered first."""
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return tuple(implementation.function for implementation in found)


def registry_of(plugins: Iterable[object], disable: Iterable[str]) -> Registry:
    """Return the registry of these plugins; with entry points alone, all Shields have one."""
    extra = tuple(plugins)
    if extra:
        return Registry(extra, disable)
    return _of_entry_points(_entry_points(), frozenset(disable))


@lru_cache(maxsize=8)
def _of_entry_points(points: tuple[metadata.EntryPoint, ...], disable: frozenset[str]) -> Registry:
    return Registry((), disable, points)


@cache
def _entry_points() -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=GROUP))


@cache
def _name_and_version(distribution: metadata.Distribution | None) -> tuple[str, str]:
    """Read both once: each is found by parsing a file that holds the README as well."""
    return (distribution.name, distribution.version) if distribution else ("", "")


@cache
def _load(point: metadata.EntryPoint) -> object:
    return point.load()
