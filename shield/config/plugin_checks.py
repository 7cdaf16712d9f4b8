"""What is wrong with a plugin, told when it is loaded: what would never work is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from shield import capabilities, hookspecs
from shield.action import Action
from shield.plugin_results import shown
from shield.policy import Policy, Traits
from shield.settings_model import nearest
from shield.transport import Transport

HOOKS = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if name.startswith("shield_") and inspect.isfunction(function)
}
"""Every hook, and the names of its arguments."""
MARK = "shield_impl"
"""The attribute that `hookimpl` leaves at a function."""
LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
BASES: dict[str, type] = {
    "shield_policies": Policy,
    "shield_actions": Action,
    "shield_transports": Transport,
}
"""What the kinds that a hook contributes are; those of other hooks are called."""
CAPABILITIES: dict[str, type] = {
    method: kind
    for kind in vars(capabilities).values()
    if isinstance(kind, type) and kind.__module__ == capabilities.__name__
    for method in vars(kind)
    if method[0] != "_"
}
"""The capability that each method, or attribute, of one belongs to."""
FORMER_METHODS = {
    "take": "acquire",
    "give_back": "cancel",
    "settle": "release",
    "offered": "on_offer",
    "excess": "rejection_share",
    "hold": "on_diverted",
    "let_go": "on_returned",
    "waited": "check_waiting",
    "line": "queue_key",
    "wait_s": "drain_time_s",
    "most_unanswered": "max_in_flight",
    "inherit": "carry_over",
    "goes_by": "required_signals",
    "listens": "wakes_on_signal",
}
"""What methods of policies were called, and are now."""
FORMER_TRAITS = {
    "directions": "directions",
    "runs": "batchable",
    "patient": "deferred_settlement",
    "tells_of_load": "counts_as_load",
}
"""What fields of `Traits` were called, as attributes of a policy, and are now."""
FORMER_MARKS = {"bounds": "BoundsInFlight", "chooses": "SelectsVictims"}
"""What was said by an attribute, and is said now by inheriting a capability."""


def wrong_hooks(plugin: object) -> Iterator[str]:
    """Say what is wrong with the hooks of a plugin."""
    for name in _names(plugin):
        try:
            function = getattr(plugin, name)
        except Exception as error:
            yield f"its attribute {name} cannot be read: {shown(error)}"
            continue
        options = _options(function)
        if options is not None:
            yield from _wrong_hook(name, function, options)
        elif name in HOOKS and callable(function):
            yield f"hook {name} is not marked with @shield.hookimpl"


def _names(plugin: object) -> list[str]:
    """Return the names of all that might be hooks."""
    try:
        return [name for name in dir(plugin) if not name.startswith("_")]
    except Exception:
        return []


def _options(function: object) -> Mapping[str, Any] | None:
    """Return what `hookimpl` was given; None for what is no hook."""
    try:
        found = getattr(function, MARK, None)
    except Exception:
        return None
    return found if isinstance(found, dict) and inspect.isroutine(function) else None


def _wrong_hook(
    name: str, function: Callable[..., object], options: Mapping[str, Any]
) -> Iterator[str]:
    hook = options.get("specname") or name
    if hook not in HOOKS:
        if not options.get("optionalhook"):
            yield f"hook {hook} does not exist; {nearest(hook, list(HOOKS))}"
        return
    if options.get("hookwrapper") or options.get("wrapper"):
        yield f"hook {hook} is a wrapper; allowed is a plain function: hooks here are not wrapped"
    if any(kind(function) for kind in LATER):
        yield f"hook {hook} is async or a generator; allowed is a plain function, called at once"
    arguments = HOOKS[hook]
    try:
        inspect.signature(function).bind(**dict.fromkeys(arguments))
    except (TypeError, ValueError) as error:
        yield f"hook {hook} does not take ({', '.join(arguments)}): {error}"


def wrong_kind(hook: str, name: object, kind: object) -> str | None:
    """Say what is wrong with what a hook contributes under a name; None for nothing."""
    if not isinstance(name, str) or not name:
        return f"{hook}: found the name {shown(name)}; allowed is a text that is not empty"
    base = BASES.get(hook)
    if base is None:
        return None if callable(kind) else f"{hook}: {name!r} is {shown(kind)}, and not callable"
    if not isinstance(kind, type) or not issubclass(kind, base):
        return f"{hook}: {name!r} is {shown(kind)}; allowed is a class of shield.{base.__name__}"
    return next((f"{hook}: {name!r} {wrong}" for wrong in _wrong_class(kind, base)), None)


def _wrong_class(kind: Any, base: type) -> Iterator[str]:
    if inspect.isabstract(kind):
        yield f"lacks {', '.join(sorted(kind.__abstractmethods__))}"
    if kind.__hash__ is not object.__hash__ or kind.__eq__ is not object.__eq__:
        yield "has an __eq__ or __hash__ of its own; allowed is that of object"
    for method in (*vars(base), *(CAPABILITIES if base is Policy else ())):
        own = inspect.getattr_static(kind, method, None)
        if method[0] != "_" and any(later(getattr(own, "__func__", own)) for later in LATER):
            yield f"has {method} as an async method or a generator; allowed is a plain one"
    if base is Policy:
        yield from _wrong_policy(kind)
    yield from _wrong_settings(kind)


def _wrong_policy(kind: type[Policy]) -> Iterator[str]:
    """Say what Shield would never call, or ask, of a policy."""
    for former, method in FORMER_METHODS.items():
        if hasattr(kind, former):
            yield f"defines {former}, which is called {method} now{_to_inherit(method, kind)}"
    for former, trait in FORMER_TRAITS.items():
        if hasattr(kind, former):
            yield f"defines {former}; allowed is traits = shield.Traits({trait}=...)"
    for former, capability in FORMER_MARKS.items():
        if hasattr(kind, former):
            yield f"defines {former}; inherit shield.capabilities.{capability} instead"
    for method, owner in CAPABILITIES.items():
        if hasattr(kind, method) and not issubclass(kind, owner):
            yield f"defines {method} and would not be asked{_to_inherit(method, kind)}"


def _to_inherit(method: str, kind: type[Policy]) -> str:
    """Return which capability is to be inherited for a method; nothing where that is so."""
    owner = CAPABILITIES.get(method)
    if owner is None or issubclass(kind, owner):
        return ""
    return f"; inherit shield.capabilities.{owner.__name__}"


def _wrong_settings(kind: type) -> Iterator[str]:
    if not issubclass(kind, Policy | Action):
        return
    model: Any = kind.Settings
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        yield f"has {shown(model)} as its Settings; allowed is a class of shield.StrictModel"
        return
    short = kind.shorthand if issubclass(kind, Policy) else kind.argument
    if short is not None and short not in model.model_fields:
        known = nearest(str(short), list(model.model_fields))
        yield f"names {short!r} as the field for a bare value; {known}"
    if issubclass(kind, Policy) and not isinstance(kind.traits, Traits):
        yield f"has {shown(kind.traits)} as its traits; allowed is shield.Traits(...)"
        return
    directions = directions_of(kind)
    if not isinstance(directions, set | frozenset) or not directions <= {"publish", "consume"}:
        yield f"has the directions {shown(directions)}; allowed are 'publish' and 'consume'"


def directions_of(kind: type[Policy] | type[Action]) -> frozenset[str]:
    """Return in rules of which direction a policy or an action has a meaning."""
    return kind.traits.directions if issubclass(kind, Policy) else kind.directions
