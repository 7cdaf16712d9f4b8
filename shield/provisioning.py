"""What an adapter brings along so that `shield setup` can make overflow destinations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from shield.retention import DAY_S

LEAST_S = 7 * DAY_S
"""How long what is set aside should be kept, where nobody says."""


class State(StrEnum):
    """How a thing stands on the broker."""

    MADE = "made"
    THERE = "was there"
    MISSING = "missing"
    REFUSED = "refused"
    """The broker did not make it, or has another one of that name, which is left alone."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A topic, an exchange, a queue or a binding that a destination needs."""

    what: str
    name: str
    state: State
    detail: str = ""
    """How it was made, or what the broker said."""
    keeps: str = ""
    """What it keeps of what is put there, and for how long; empty where that is not known."""
    warnings: tuple[str, ...] = ()
    """How what lies there may be lost."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a rule sends what is over the limit.

    Args:
        name: as the rule's chain gives it.
        match: the rule's glob: the original destinations.
    """

    name: str
    match: str


class Provisioner(ABC):
    """One broker on which destinations are looked at, and made. Used as a context manager."""

    title: str
    """Which broker this is."""
    retention_s: float | None = None
    """For how long places are to keep messages; None to leave that to the broker."""

    @property
    def least_s(self) -> float:
        """How long places should keep messages, or a warning says that they do not."""
        return LEAST_S if self.retention_s is None else self.retention_s

    @abstractmethod
    def __enter__(self) -> Self:
        """Reach the broker; ShieldError says why that is not possible."""

    @abstractmethod
    def __exit__(self, *exception: object) -> None:
        """Disconnect."""

    @abstractmethod
    def look(self, destination: Destination) -> Iterator[Resource]:
        """Yield what the destination needs, as it stands; change nothing."""

    @abstractmethod
    def make(self, destination: Destination) -> Iterator[Resource]:
        """Make what is missing. What is there is left as it is, also where it differs.

        But for how long it keeps messages, where `retention_s` says that and the broker can.
        """
