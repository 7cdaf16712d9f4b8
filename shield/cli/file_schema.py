"""The JSON schema of a shield.toml."""

from __future__ import annotations

from typing import Any

from shield.config.registry import Registry
from shield.config.settings import settings_model

TABLES = ("rules", "plugins", "credentials")


def file_schema(registry: Registry) -> dict[str, Any]:
    """Return the schema of the file: the model's, with the process's own keys under `[shield]`."""
    schema = settings_model(registry).model_json_schema()
    keys: dict[str, Any] = schema.pop("properties")
    tables = {name: keys.pop(name) for name in TABLES}
    shield = {"type": "object", "properties": keys, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "shield.toml",
        "properties": {"shield": shield, **tables},
    }
