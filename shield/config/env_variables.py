"""Environment variables that begin with SHIELD_: one that no setting reads was misspelt."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from shield.settings_model import nearest

PREFIX = "SHIELD_"
TABLES = {"plugins", "credentials"}
"""Settings of which a variable may set a part: `SHIELD_PLUGINS__DISABLE`."""
_OTHERS = re.compile(r"CONFIG|RUN|SOAK|TEST_.*")
"""What is no setting: which file to read, `shield run`, the project's own tests."""
_OF_KUBERNETES = re.compile(
    r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes sets in every pod, where a service is called `shield` or `shield-...`."""


def unknown_variables(settings: list[str]) -> Iterator[str]:
    """Yield a line for each variable that sets nothing; `settings` are the keys of `[shield]`."""
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX):
            yield from _wrong(name, name.upper().removeprefix(PREFIX), settings)


def _wrong(name: str, word: str, settings: list[str]) -> Iterator[str]:
    if _OTHERS.fullmatch(word) or _OF_KUBERNETES.fullmatch(word):
        return
    key, parts, _ = word.lower().partition("__")
    if key not in settings:
        yield f"environment variable {name}: no such setting; {_nearest(key, settings)}"
    elif parts and key not in TABLES:
        yield (
            f"environment variable {name}: {key} has no parts that a variable could set; allowed "
            f"is {PREFIX}{key.upper()}"
        )


def _nearest(key: str, settings: list[str]) -> str:
    names = [PREFIX + setting.upper() for setting in (*settings, "config")]
    return nearest(PREFIX + key.upper(), names)
