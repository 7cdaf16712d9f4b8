"""Finds plugins and gathers what they contribute; nothing here runs per message."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from shield import hookspecs
from shield.config.plugin_checks import wrong_hooks, wrong_kind
from shield.errors import PluginError
from shield.plugin_results import shown
from shield.settings_model import nearest

if TYPE_CHECKING:
    from shield.action import Action
    from shield.config.settings import ShieldSettings
    from shield.demo import Demo
    from shield.envelope import Envelope
    from shield.policy import KeyOf, Policy
    from shield.provisioning import Provisioner
    from shield.transport import Transport

log = logging.getLogger("shield")
GROUP = "shield"
OWN = "broker-shield"
"""The distribution of the built-ins."""
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
    entry_point: str = ""
    """What it is loaded from, as `module:object`; nothing for one that was given in code."""
    file: str = ""
    """The file of its module, where that is known."""

    @property
    def origin(self) -> str:
        """Where it comes from, in words; nothing for a built-in, and for one given in code."""
        if not self.distribution or self.distribution == OWN:
            return ""
        return f"entry point {self.name} of {self.distribution} {self.version}".rstrip()

    def says(self, wrong: str) -> str:
        """Return the line that names it and says what is wrong."""
        if not self.distribution:
            return f"plugin {self.name!r}: {wrong}"
        file = f", {self.file}" if self.file else ""
        return (
            f"plugin {self.name!r} (entry point {self.name} = {self.entry_point} of "
            f"{self.distribution} {self.version}{file}): {wrong}; "
            f"[plugins] disable = [{self.name!r}] leaves it out"
        )


class Registry:
    """The plugins of one Shield, and the kinds they contribute by name.

    An installed plugin with which something is wrong is left out, and told of in `faults`: the
    command line works without it, a Shield is refused (`check`).

    Args:
        plugins: plugin objects or modules beside those that entry points name.
        disable: names of entry points to leave out.
        points: entry points to load, where not all that are installed.

    Raises:
        PluginError: something is wrong with one of `plugins`.
    """

    model: type[ShieldSettings] | None = None
    """All settings with the keys of these kinds, once `shield.config.settings` has made it."""

    def __init__(
        self,
        plugins: Iterable[object] = (),
        disable: Iterable[str] = (),
        points: Iterable[metadata.EntryPoint] | None = None,
    ) -> None:
        self.extra = tuple(plugins)
        self.disabled = frozenset(disable)
        self.infos: list[PluginInfo] = []
        self.faults: list[str] = []
        """What is wrong with plugins that are installed: then they are left out."""
        self.missing: list[str] = []
        """Those that cannot be loaded; settings say whether a Shield does without them."""
        self._names: dict[str, PluginInfo] = {}
        self._origins: dict[object, str] = {}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        for point in _entry_points() if points is None else points:
            self._add_entry_point(point)
        for plugin in self.extra:
            self._add(plugin, PluginInfo(_name_of(plugin), "", "", ()))
        self.policies: dict[str, type[Policy]] = self._gather("shield_policies")
        self.actions: dict[str, type[Action]] = self._gather("shield_actions")
        self.resolvers: dict[str, Callable[[str | None], KeyOf]] = self._gather("shield_resolvers")
        self.transports: dict[str, type[Transport]] = self._gather("shield_transports")
        self.demos: dict[str, Callable[[str | None], Demo[Any]]] = self._gather("shield_demos")
        self.setups: dict[str, Callable[[str | None, int | None], Provisioner]] = self._gather(
            "shield_setups"
        )

    @property
    def names(self) -> frozenset[tuple[str, str]]:
        """What there is: the kind of thing, and its name in settings."""
        kinds = vars(self)
        gathered = ("policies", "actions", "resolvers", "transports", "demos", "setups")
        return frozenset((kind, name) for kind in gathered for name in kinds[kind])

    def check(self, *, needs_all: bool = False) -> None:
        """Refuse to work with plugins of which one is wrong; or, where all are needed, missing.

        Raises:
            PluginError: a line for each.
        """
        wrong = [*self.faults, *(self.missing if needs_all else ())]
        if wrong:
            raise PluginError("\n".join(wrong))

    def _add_entry_point(self, point: metadata.EntryPoint) -> None:
        name, version = _name_and_version(point.dist)
        value = str(getattr(point, "value", ""))
        if point.name in self.disabled:
            self.infos.append(PluginInfo(point.name, version, name, (), "off", value))
            return
        try:
            plugin = _load(point)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also one that ends the program when it is imported
            log.warning("plugin %s (%s) cannot be loaded: %r", point.name, name, error)
            reason = f"cannot be loaded: {shown(error)}"
            info = PluginInfo(point.name, version, name, (), reason, value, _file_of(value))
            self.infos.append(info)
            self.missing.append(info.says(reason))
            return
        self._add(plugin, PluginInfo(point.name, version, name, (), "on", value, _file_of(value)))

    def _add(self, plugin: object, info: PluginInfo) -> None:
        if not info.distribution and self._manager.is_registered(plugin):
            return  # it is installed, and given in code as well
        wrong = list(wrong_hooks(plugin))
        if not wrong:
            try:
                registered = self._manager.register(
                    plugin, info.name if info.distribution else None
                )
            except Exception as error:
                wrong.append(f"it cannot be registered: {shown(error)}")
        if wrong:
            self._is_wrong(info, *wrong)
            return
        assert registered is not None
        self._names[registered] = info
        hooks = sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ())
        self.infos.append(replace(info, hooks=tuple(hooks)))

    def _is_wrong(self, info: PluginInfo, *wrong: str) -> None:
        """Leave an installed plugin out; refuse one that is given in code."""
        lines = [info.says(each) for each in wrong]
        if not info.distribution:
            raise PluginError("\n".join(lines))
        self.faults += lines
        self.infos = [known for known in self.infos if known.name != info.name]
        self.infos.append(replace(info, state="; ".join(wrong)))

    def _gather(self, hook: str) -> dict[str, Any]:
        """Merge the mappings that plugins return; of a name claimed twice the second is wrong."""
        found: dict[str, Any] = {}
        owners: dict[str, PluginInfo] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            info = self._names[implementation.plugin_name]
            for name, kind in self._kinds(hook, implementation.function, info):
                if found.get(name) is kind:
                    continue
                wrong = (
                    f"{hook}: {name!r} comes from both plugin {owners[name].name!r} and plugin "
                    f"{info.name!r}; disable one under [plugins]"
                    if name in found
                    else wrong_kind(hook, name, kind)
                )
                if wrong is None:
                    found[name], owners[name] = kind, info
                    self._note(kind, info)
                else:
                    self._is_wrong(info, wrong)
        return found

    def _kinds(
        self, hook: str, function: Callable[[], object], info: PluginInfo
    ) -> list[tuple[Any, Any]]:
        """Return what a plugin contributes; none where it fails at that."""
        try:
            kinds = function()
            if isinstance(kinds, Mapping):
                return list(kinds.items())
            self._is_wrong(info, f"{hook}: found {shown(kinds)}; allowed is a mapping")
        except PluginError:
            raise
        except Exception as error:
            self._is_wrong(info, f"{hook} raised {shown(error)}")
        return []

    def _note(self, who: object, info: PluginInfo) -> None:
        """Remember whose it is, to name that where it fails."""
        if info.origin:
            self._origins[id(who)] = info.origin

    def origin_of(self, who: object) -> str:
        """Return which distribution's plugin a hook, or the object of a method, is from.

        Nothing for built-ins, and for what was given in code.
        """
        owner = getattr(who, "__self__", who)
        kinds = owner.__mro__ if isinstance(owner, type) else type(owner).__mro__
        for one in (who, owner, *kinds):
            if id(one) in self._origins:
                return self._origins[id(one)]
        return ""

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

    def reaches(self, envelope: Envelope) -> Iterable[str]:
        """Return every destination that a message would reach, as its kind of client knows."""
        kind = self.transports.get(envelope.kind)
        return (envelope.destination,) if kind is None else kind.reaches(envelope)

    def implementations(self, hook: str) -> tuple[Callable[..., Any], ...]:
        """Return who implements a per-message hook, first registered first."""
        found = getattr(self._manager.hook, hook).get_hookimpls()
        for implementation in found:
            self._note(implementation.function, self._names[implementation.plugin_name])
        return tuple(implementation.function for implementation in found)


def registry_of(plugins: Iterable[object], disable: Iterable[str]) -> Registry:
    """Return the registry of these plugins; with entry points alone, all Shields have one."""
    extra = tuple(plugins)
    if extra:
        return Registry(extra, disable)
    return _of_entry_points(_entry_points(), frozenset(disable))


def installed() -> tuple[metadata.EntryPoint, ...]:
    """Return the entry points of all plugins that are installed."""
    return _entry_points()


@lru_cache(maxsize=8)
def _of_entry_points(points: tuple[metadata.EntryPoint, ...], disable: frozenset[str]) -> Registry:
    return Registry((), disable, points)


@cache
def _entry_points() -> tuple[metadata.EntryPoint, ...]:
    """Return all, the built-ins first: who takes a name of theirs is the one who is wrong."""
    points = metadata.entry_points(group=GROUP)
    return tuple(sorted(points, key=lambda point: _name_and_version(point.dist)[0] != OWN))


@cache
def _name_and_version(distribution: metadata.Distribution | None) -> tuple[str, str]:
    """Read both once: each is found by parsing a file that holds the README as well."""
    try:
        return (distribution.name, distribution.version) if distribution else ("", "")
    except Exception:  # a distribution whose own files are damaged
        return "unknown", ""


@cache
def _load(point: metadata.EntryPoint) -> object:
    return point.load()


def _name_of(plugin: object) -> str:
    name = getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else type(plugin).__name__


def _file_of(value: str) -> str:
    """Return the file of an entry point's module, as far as that is known without importing it."""
    module = value.partition(":")[0].strip()
    try:
        loaded = sys.modules.get(module)
        found = loaded.__spec__ if loaded is not None else find_spec(module)
        return (found and found.origin) or ""
    except Exception:
        return ""
