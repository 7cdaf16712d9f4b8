"""The settings in force as plain data, and where each of them came from."""

from __future__ import annotations

import os
from typing import Any

from shield.config.env_variables import PREFIX
from shield.config.settings import ShieldSettings
from shield.url import is_secret, masked


def effective(settings: ShieldSettings) -> dict[str, Any]:
    """Return the settings as shield.toml would hold them, without passwords."""
    found = settings.model_dump(mode="json", by_alias=True, exclude={"rules"}, exclude_none=True)
    given = settings.model_dump(
        mode="json", by_alias=True, include={"rules"}, exclude_none=True, exclude_defaults=True
    )
    rules = given.get("rules", [])
    tables = {name: found.pop(name) for name in ("plugins", "credentials")}
    return dict(_masked({"shield": found, **tables, "rules": rules}))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "***" if is_secret(key) and isinstance(item, str) else _masked(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, str):
        return masked(value)
    return value


def origins(settings: ShieldSettings) -> dict[str, str]:
    """Return for each setting the variable, the file, or `default`."""
    return {name: _origin(settings, name) for name in type(settings).model_fields}


def _origin(settings: ShieldSettings, name: str) -> str:
    variable = PREFIX + name.upper()
    for found in sorted(os.environ):
        if found.upper() == variable or found.upper().startswith(variable + "__"):
            return f"environment variable {found}"
    return settings.source if name in settings.model_fields_set else "default"
