"""Settings models that refuse keys they do not know, and say which are nearest."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def nearest(word: str, known: list[str]) -> str:
    """Return a hint naming the known word nearest to `word`, and all known ones."""
    close = difflib.get_close_matches(word, known, 1, 0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(sorted(known))}"


class StrictModel(BaseModel):
    """Frozen; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known and key not in cls.model_fields:
                    raise unknown_key(str(key), known)
        return data


def unknown_key(key: str, known: list[str]) -> PydanticCustomError:
    """Return the error for a key that no model knows."""
    return PydanticCustomError(
        "unknown_key", "unknown key; {hint}", {"key": key, "hint": nearest(key, known)}
    )
