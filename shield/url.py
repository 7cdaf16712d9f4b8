"""URLs of other brokers and files, whose secrets are never shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class URL:
    """One URL in its parts. Its `str` and `repr` leave out the password.

    `${NAME}` in it stands for that environment variable.
    """

    scheme: str
    hosts: str
    path: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> URL:
        """Read a URL; ValueError says what is wrong with it, without its secrets."""
        if not is_url(text):
            raise ValueError("not a URL; allowed is scheme://[user:password@]host:port/path")
        parts = urlsplit(_VARIABLE.sub(_value_of, text))
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, colon, password = credentials.partition(":")
        return cls(
            scheme=parts.scheme,
            hosts=hosts,
            path=parts.path.removeprefix("/") if hosts else parts.path,
            username=unquote(username) if credentials else None,
            password=unquote(password) if colon else None,
            options=tuple(parse_qsl(parts.query)),
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.hosts}{'/' if self.hosts else ''}{self.path}"


def is_url(text: str) -> bool:
    """Tell whether a destination names another place, not one on the client's own broker."""
    return _SCHEME.match(text) is not None


def _value_of(found: re.Match[str]) -> str:
    name = found[1]
    if name not in os.environ:
        raise ValueError(f"the environment variable {name} that it names is not set")
    return os.environ[name]
