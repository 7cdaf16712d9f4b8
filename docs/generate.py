"""Writes docs/settings.md from the settings' models: `python docs/generate.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shield.cli.file_schema import TABLES
from shield.config.credentials import Credential
from shield.config.registry import Registry
from shield.config.settings import PluginSettings, RuleSettings, ShieldSettings

PAGE = Path(__file__).with_name("settings.md")

INTRODUCTION = """# Settings

Written by `docs/generate.py` from the models that validate a file; do not edit.

Settings come from arguments in code, then from environment variables, then from the file, then
from defaults. The file is the one named by `--config` or in code, else by `SHIELD_CONFIG`, else
`shield.toml` in the working directory. An unknown key, a wrong unit or an impossible combination
is refused as a whole, with a line that names the key, what was found and what is allowed.
`shield config check` reads the file as a program would.

Environment: `SHIELD_` and the key of `[shield]`, as `SHIELD_PRODUCER` or `SHIELD_MODE`;
`SHIELD_RULES` and `SHIELD_PLUGINS` hold JSON, `SHIELD_PLUGINS__DISABLE` one key of it;
`SHIELD_CREDENTIALS__OTHER__PASSWORD` is `password` of `[credentials.other]`.

A variable `SHIELD_...` that sets none of these is refused as a misspelt key is (those that
Kubernetes sets for a service called `shield` are not). A file is an ordinary
one, of 16 MiB at most.

Rates are `500/s`, `90/m`, `1000/h`, `20/d`, `5MiB/s`; sizes `64MiB` (B KiB MiB GiB TiB KB MB GB);
times `200ms`, `1.5s`, `2m`. A policy's table may be a list of tables: all of them must admit.
"""


def page() -> str:
    """Return the page."""
    registry = Registry()
    parts = [INTRODUCTION, *_table("`[shield]`", ShieldSettings, leave_out=set(TABLES))]
    parts += _table("`[plugins]`", PluginSettings)
    parts += _table("`[credentials.NAME]`", Credential, "Who to be at another broker.")
    parts += _table("`[[rules]]`", RuleSettings)
    for name, policy in sorted(registry.policies.items()):
        parts += _table(f"Policy `{name}`", policy.Settings, _first_line(policy))
    for name, action in sorted(registry.actions.items()):
        parts += _table(f"Action `{name}`", action.Settings, _first_line(action))
    return "\n".join(parts)


def _table(
    title: str, model: type[BaseModel], about: str = "", leave_out: set[str] = frozenset()
) -> Iterator[str]:
    yield f"## {title}\n"
    if about:
        yield f"{about}\n"
    fields = {name: field for name, field in model.model_fields.items() if name not in leave_out}
    if not fields:
        yield "Takes no settings.\n"
        return
    yield "| key | default | what it says |"
    yield "|---|---|---|"
    for name, field in fields.items():
        yield f"| `{field.alias or name}` | {_default(field)} | {_about(field)} |"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default: Any = field.default
    if default is PydanticUndefined:
        return "see right"
    if default in (None, [], ""):
        return "none"
    return f"`{default}`"


def _about(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n\n")[0].replace("\n    ", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
