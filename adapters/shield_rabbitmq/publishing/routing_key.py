"""A routing key made from the arguments of the function that makes the message."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable
from typing import Any

from shield import SettingsError

RoutingKey = str | Callable[..., str]


def routing_key_of(choice: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes a routing key from a call's arguments, from a text, template or callable.

    Raises:
        SettingsError: it is neither, or the template names what the function has no argument for.
    """
    if callable(choice):
        return choice  # type: ignore[no-any-return]
    if not isinstance(choice, str):
        raise SettingsError(f"routing_key: found {choice!r}; allowed is a text or a callable")
    if not _fields(choice):
        constant = choice.format()
        return lambda *_args, **_kwargs: constant
    return _from_template(choice, function)


def _from_template(template: str, function: Callable[..., Any]) -> Callable[..., str]:
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    for name in _fields(template):
        if name not in signature.parameters and rest is None:
            raise SettingsError(
                f"routing_key: {template!r} names {name!r}, for which the function has no "
                f"argument; allowed are {', '.join(signature.parameters) or 'none'}"
            )

    def fill(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return template.format_map({**bound.arguments, **bound.arguments.get(rest or "", {})})

    return fill


def _fields(template: str) -> list[str]:
    """Return the names that a template begins its fields with."""
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise SettingsError(f"routing_key: {template!r} is no template: {error}") from None
    names = [name.partition(".")[0].partition("[")[0] for name in fields]
    if any(not name.isidentifier() for name in names):
        raise SettingsError(
            f"routing_key: found {template!r}; allowed in braces are arguments by their names"
        )
    return names
