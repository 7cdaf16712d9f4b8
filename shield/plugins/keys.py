"""What `per` can say without a plugin: producer, destination, key, tenant, `header:NAME`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

from shield import KeyOf, Message, hookimpl


def _plain(key_of: KeyOf) -> Callable[[str | None], KeyOf]:
    def resolver(argument: str | None) -> KeyOf:
        if argument is not None:
            raise ValueError(f"nothing may stand behind its colon; found {argument!r}")
        return key_of

    return resolver


def _header(argument: str | None) -> KeyOf:
    if not argument:
        raise ValueError('allowed is a header\'s name behind the colon, as "header:tenant"')
    name = argument

    def header(message: Message) -> str | None:
        return message.header(name)

    return header


@hookimpl
def shield_resolvers() -> Mapping[str, Callable[[str | None], KeyOf]]:
    """Contribute the keys that every message has."""
    return {
        "producer": _plain(attrgetter("producer")),
        "destination": _plain(attrgetter("destination")),
        "key": _plain(attrgetter("key")),
        "tenant": _plain(attrgetter("tenant")),
        "header": _header,
    }
