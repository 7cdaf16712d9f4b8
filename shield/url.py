"""URLs of other brokers and files, whose secrets are never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_HOST = re.compile(r"([\w.-]*|\[[0-9a-fA-F:.]+\])(:\d+)?")
_MOST_PORT = 65_535
_FORM = r"\[user:password@\]"  # as errors give it, beside what they found
_USER = re.compile(rf"(://)(?!{_FORM})(?:(?!{_FORM}).)*(?=@)", re.DOTALL)
_USER_OF_NO_URL = re.compile(r"""[^\s'"=,(\[{]*(?::|//)[^\s'"]*(?=@)""")
_OPTION = re.compile(
    r"([?&][^=\s&]*(?:pass|pwd|secret|token|credential|api_?key)[^=\s&]*=)[^&\s'\"]+", re.IGNORECASE
)
_NESTED_OPTIONS = re.compile(r"([?&]ssl_options=)[^&]+", re.IGNORECASE)
_SECRET = re.compile(r"pass(?!ive)|pwd|secret|token|credential|signing|api_?key|ssl_options", re.I)

ALLOWED = "allowed is scheme://[user:password@]host[:port][/path][?option=value]"


@dataclass(frozen=True, slots=True)
class URL:
    """One URL in its parts. Its `str` and `repr` leave out user, password and options.

    `${NAME}` in it stands for that environment variable; what the variable holds is taken as it
    is, while characters that part a URL are percent-encoded where they are written out.
    """

    scheme: str
    hosts: str
    path: str
    """What stands after the host and its slash, still percent-encoded: a part may hold a slash."""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> URL:
        """Read a URL; ValueError says what is wrong with it, without its secrets."""
        if not is_url(text):
            raise ValueError(f"not a URL; {ALLOWED}")
        try:
            parts = urlsplit(text)
        except ValueError:
            raise ValueError(f"not a URL; {ALLOWED}") from None
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, colon, password = credentials.partition(":")
        hosts = _filled(hosts)
        found = [_HOST.fullmatch(host) for host in hosts.split(",")]
        if not all(found) or (hosts and ("@" in parts.path + parts.query or parts.fragment)):
            raise ValueError(
                f"its host cannot be made out; {ALLOWED}, where / ? # @ in its other "
                "parts are percent-encoded"
            )
        _check_ports(port for host in found if host and (port := host[2]))
        path = parts.path.removeprefix("/") if hosts else parts.path
        return cls(
            scheme=parts.scheme,
            hosts=hosts,
            path=_filled(path),
            username=_filled(unquote(username)) if credentials else None,
            password=_filled(unquote(password)) if colon else None,
            options=tuple(
                (name, _filled(value))
                for name, value in parse_qsl(parts.query, keep_blank_values=True)
            ),
        )

    def segments(self, most: int) -> list[str]:
        """Return the path's parts between slashes, so many at the most, percent-decoded."""
        return [unquote(part) for part in self.path.split("/", most - 1)] if self.path else []

    def options_of(self, *known: str) -> dict[str, str]:
        """Return its options by name.

        Raises:
            ValueError: one that is not known, or is there twice.
        """
        found: dict[str, str] = {}
        for name, value in self.options:
            if name not in known:
                raise ValueError(f"unknown option {name!r}; allowed: {', '.join(sorted(known))}")
            if name in found:
                raise ValueError(f"option {name!r} is there twice; allowed is once")
            found[name] = value
        return found

    def __str__(self) -> str:
        return f"{self.scheme}://{self.hosts}{'/' if self.hosts else ''}{self.path}"


PORTS = {"amqp": 5672, "amqps": 5671, "kafka": 9092, "redis": 6379, "rediss": 6379}
"""Where a broker listens whose URL does not say."""


def servers_of(url: URL) -> frozenset[str]:
    """Return the hosts of a URL, each with its port."""
    return frozenset(_with_port(host.lower(), url.scheme) for host in url.hosts.split(","))


def _with_port(host: str, scheme: str) -> str:
    if host.rpartition(":")[2].isdecimal() and not host.endswith("]"):
        return host
    return f"{host}:{PORTS.get(scheme, '')}"


def same_broker(one: URL, other: URL) -> bool:
    """Tell whether one means no other broker than the other: all of its servers are that one's.

    A path is what it has beside, as RabbitMQ its virtual hosts.
    """
    return (
        one.scheme == other.scheme
        and servers_of(one) <= servers_of(other)
        and _beside(one) == _beside(other)
    )


def _beside(url: URL) -> str:
    path = unquote(url.path)
    return "" if path == "/" else path


def is_url(text: str) -> bool:
    """Tell whether a destination names another place, not one on the client's own broker."""
    return _SCHEME.match(text) is not None


def masked(text: str) -> str:
    """Return a text with *** where a URL in it has user, password, or an option that is secret.

    Who a user is may be a secret too, as a token is; and so may what stands before the @ of a URL
    that was mistyped.
    """
    text = _USER.sub(r"\1***", text) if "://" in text else _USER_OF_NO_URL.sub("***", text)
    return _NESTED_OPTIONS.sub(r"\1***", _OPTION.sub(r"\1***", text))


def is_secret(name: str) -> bool:
    """Tell whether what a key or an option of that name holds is not to be shown."""
    return _SECRET.search(name) is not None


def _check_ports(ports: Iterable[str]) -> None:
    for port in ports:
        digits = port[1:].lstrip("0")
        if len(digits) > len(str(_MOST_PORT)) or not 1 <= int(digits or 0) <= _MOST_PORT:
            raise ValueError(f"its port is {digits[:9] or 0}; allowed is 1 to {_MOST_PORT}")


def _filled(text: str) -> str:
    return _VARIABLE.sub(_value_of, text)


def _value_of(found: re.Match[str]) -> str:
    name = found[1]
    if name not in os.environ:
        raise ValueError(f"the environment variable {name} that it names is not set")
    return os.environ[name]
