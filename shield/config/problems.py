"""Turns pydantic's errors into lines naming the file, the key, what was found, what is allowed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shield.url import is_secret, masked

TOP_LEVEL = {"credentials", "rules", "plugins"}
LONGEST_FOUND = 60
_OF_A_KEY = {"unknown_key", "bool_as_number"}
"""Problems that a table has with one of its keys, which the error names."""


def describe(error: ValidationError, source: str, arguments: Collection[str]) -> Iterator[str]:
    """Yield one line for each thing that is wrong.

    `source` is the file's path, or what else the settings came from; `arguments` are the keys
    that were given in code, which go before the environment.
    """
    for problem in error.errors():
        key = str(problem["loc"][0]) if problem["loc"] else ""
        place = source if key in arguments else _variable(key) or source
        yield f"{place}: {_path(problem)}: {_found(problem)}{allowed(problem)}"


def _variable(key: str) -> str | None:
    """Return the environment variable that sets a top-level key, or a part of it."""
    wanted = f"SHIELD_{key}".upper()
    names = [name for name in os.environ if name.upper().partition("__")[0] == wanted]
    return f"environment variable {names[0]}" if names else None


def _path(problem: ErrorDetails) -> str:
    location = list(problem["loc"])
    if problem["type"] in _OF_A_KEY:
        location.append(problem["ctx"]["key"])
    path = "" if location and location[0] in TOP_LEVEL else "shield"
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _found(problem: ErrorDetails) -> str:
    if problem["type"] in {*_OF_A_KEY, "missing", "extra_forbidden"}:
        return ""
    if any(is_secret(str(part)) for part in problem["loc"]):
        return ""
    found: Any = masked(repr(problem["input"]))
    if len(found) > LONGEST_FOUND:
        found = found[: LONGEST_FOUND - 3] + "..."
    return f"found {found}; "


def allowed(problem: ErrorDetails) -> str:
    """Return what is allowed, in words of the settings and not of Python."""
    message = masked(problem["msg"]).removeprefix("Value error, ")
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "missing":
        return "is missing and has no default"
    if kind == "greater_than_equal":
        return f"allowed is {context['ge']} or more"
    if kind in _ALLOWED:
        return f"allowed is {_ALLOWED[kind]}"
    if message.startswith("Input should be "):
        return "allowed is " + message.removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


_ALLOWED = {
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "list_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "model_type": "a table",
    "dict_type": "a table",
}
