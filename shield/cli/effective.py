"""The settings in force as plain data, and where each of them came from."""

from __future__ import annotations

import os
import re
from typing import Any

from shield.settings import PREFIX, ShieldSettings

_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)\S+(?=@)")
_QUERY_PASSWORD = re.compile(r"([?&][^=\s&]*(?:password|secret|token)=)[^&\s]+", re.IGNORECASE)


def effective(settings: ShieldSettings) -> dict[str, Any]:
    """Return the settings as shield.toml would hold them, without passwords."""
    found = settings.model_dump(mode="json", by_alias=True, exclude={"rules"}, exclude_none=True)
    given = settings.model_dump(
        mode="json", by_alias=True, include={"rules"}, exclude_none=True, exclude_defaults=True
    )
    rules = given.get("rules", [])
    plugins = found.pop("plugins")
    return dict(_masked({"shield": found, "plugins": plugins, "rules": rules}))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, str):
        return _QUERY_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1***", value))
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
