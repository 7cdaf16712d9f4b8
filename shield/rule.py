"""A rule: which messages it covers, its policies, its over-limit chain."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shield.action import Action
    from shield.policy import KeyOf, Policy
    from shield.transport import Source, Transport
    from shield.url import URL


def glob_matches(glob: str, text: str) -> bool:
    """Tell whether `text` as a whole matches `glob`, where `*` is any characters, also none."""
    return re.fullmatch(".*".join(map(re.escape, glob.split("*"))), text, re.DOTALL) is not None


def resolve_nothing(per: str) -> KeyOf:
    """Refuse every `per`: the rule was made without a registry."""
    raise ValueError(f"per: nothing resolves {per!r}")


def as_it_stands(text: str) -> URL:
    """Read a URL without the settings' credentials: the rule was made without any."""
    from shield.url import URL

    return URL.parse(text)


def read_nothing(url: URL) -> Source:
    """Refuse every URL: the rule was made without a registry."""
    raise ValueError(f"nothing reads from {url}")


def carry_nothing(url: URL) -> Transport:
    """Refuse every URL: the rule was made without a registry."""
    raise ValueError(f"nothing sends to {url}")


def raise_it(_who: object, error: BaseException) -> None:
    """Let it out: the rule is no Shield's, so that nobody counts what its plugins raise."""
    raise error


@dataclass(eq=False)
class Rule:
    """One `[[rules]]` table, compiled. Every rule that covers a message applies, in file order."""

    name: str
    match: str
    exclude: str | None = None
    producers: str = "*"
    direction: str = "publish"
    shadow: bool = False
    redrive: str | None = None
    """`auto` where what overflowed comes back by itself."""
    refused_s: float = float("-inf")
    """When it last refused a message that was not set aside already, because of load."""
    resolve: Callable[[str], KeyOf] = resolve_nothing
    """Finds how `per = "..."` tells messages apart; for policies that have such a setting."""
    transport: Callable[[URL], Transport] = carry_nothing
    """Finds what sends to a URL; for actions that have such a destination."""
    url: Callable[[str], URL] = as_it_stands
    """Reads a URL, with user and password from the settings' credentials where it has none."""
    source: Callable[[URL], Source] = read_nothing
    """Finds what reads back what was sent to a URL."""
    failed: Callable[[object, BaseException], None] = raise_it
    """Counts, and names, a method of one policy that has failed when another asked it."""
    policies: list[Policy] = field(default_factory=list)
    chain: list[Action] = field(default_factory=list)

    def covers(self, destination: str, producer: str, direction: str = "publish") -> bool:
        """Tell whether the rule applies to messages of that producer to that destination."""
        return (
            direction == self.direction
            and glob_matches(self.producers, producer)
            and self.is_about(destination)
        )

    def is_about(self, destination: str) -> bool:
        """Tell whether it is about a destination, whoever sends there, or receives."""
        return glob_matches(self.match, destination) and not (
            self.exclude is not None and glob_matches(self.exclude, destination)
        )
