"""Settings models that refuse keys they do not know, and say which are nearest."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

RENAMED = {
    "queue": "client_queue",
    "queue_time": "client_queue_age",
    "throttle": "probabilistic_throttle",
    "throttled": "broker_throttle",
}
"""Keys by their former names, which look more like others: hints name the right one."""


def nearest(word: str, known: list[str]) -> str:
    """Return a hint naming the known word nearest to `word`, and all known ones."""
    close = [name for name in known if name == RENAMED.get(word)]
    close = close or difflib.get_close_matches(word, known, 1, 0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(sorted(known))}"


class StrictModel(BaseModel):
    """Frozen; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            keys = _keys_of(cls)
            for key, value in data.items():
                if key not in keys.all:
                    raise unknown_key(str(key), keys.written)
                if type(value) is bool and key in keys.numbers:
                    raise bool_as_number(str(key), value)
        return data


class _Keys(NamedTuple):
    written: list[str]
    """As settings write them."""
    all: frozenset[str]
    """And as Python does, where that differs."""
    numbers: frozenset[str]
    """Those that Python would take a true or false for, as 1 or 0."""


@cache
def _keys_of(model: type[BaseModel]) -> _Keys:
    fields = model.model_fields
    written = [field.alias or name for name, field in fields.items()]
    numbers = {
        key
        for name, field in fields.items()
        if _kinds_in(field.annotation) & {int, float} and bool not in _kinds_in(field.annotation)
        for key in (name, field.alias or name)
    }
    return _Keys(written, frozenset(written) | fields.keys(), frozenset(numbers))


def _kinds_in(annotation: Any) -> set[Any]:
    """Return the types that an annotation names: itself, or what it is a union of."""
    parts = get_args(annotation)
    return {annotation} if not parts else set().union(*map(_kinds_in, parts))


def bool_as_number(key: str, found: bool) -> PydanticCustomError:
    """Return the error for a true or false where a number belongs."""
    text = str(found).lower()
    return PydanticCustomError(
        "bool_as_number", "found {found}; allowed is a number", {"key": key, "found": text}
    )


def unknown_key(key: str, known: list[str]) -> PydanticCustomError:
    """Return the error for a key that no model knows."""
    return PydanticCustomError(
        "unknown_key", "unknown key; {hint}", {"key": key, "hint": nearest(key, known)}
    )
