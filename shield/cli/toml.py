"""Writes settings as TOML: scalars, lists and inline tables are all they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(settings: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Return the text of a shield.toml; `comments` has a remark for a key or a table's name."""
    lines = ["[shield]"]
    lines += [_line(key, value, comments.get(key)) for key, value in settings["shield"].items()]
    lines += ["", f"[plugins]{_remark(comments.get('plugins'))}"]
    lines += [_line(key, value) for key, value in settings["plugins"].items()]
    for name, table in settings["credentials"].items():
        lines += ["", f"[credentials.{name}]{_remark(comments.get('credentials'))}"]
        lines += [_line(key, value) for key, value in table.items()]
    for rule in settings["rules"]:
        lines += ["", f"[[rules]]{_remark(comments.get('rules'))}"]
        lines += [_line(key, value) for key, value in rule.items()]
    return "\n".join(lines) + "\n"


def inline(value: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(value, Mapping):
        items = ", ".join(f"{_key(key)} = {inline(item)}" for key, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _line(key: str, value: Any, comment: str | None = None) -> str:
    return f"{_key(key)} = {inline(value)}{_remark(comment)}"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key)


def _remark(comment: str | None) -> str:
    return f"    # {comment}" if comment else ""
