"""What an adapter brings along so that `shield demo` can show its client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, Self, TypeVar

ShieldT_contra = TypeVar("ShieldT_contra", contravariant=True)
"""What the producers of a demo are given as `shield=`: a `shield.Shield`."""


class DemoProducer(Protocol):
    """One shielded producer of the demo, used by one thread."""

    def send(self, body: bytes) -> object:
        """Publish as the client does; `OverLimitError` where the rule's chain says so."""
        ...

    def close(self) -> object:
        """Return when everything sent is answered, or the broker has been given up."""
        ...


@dataclass(frozen=True, slots=True)
class DemoQueue:
    """A queue inside a client, which fills when its producer is faster than the broker.

    The demo bounds it to what the broker takes in about a second, which is measured.
    """

    destination: str
    """Where the messages in it are going; its rule drops what is over the bound."""
    per_second: float
    """How many messages a second the broker takes out of it."""
    length: Callable[[], int]
    """Tells how many messages are in it now."""


class Demo(ABC, Generic[ShieldT_contra]):
    """One broker with a shielded client: an embedded broker, or a real one that is named.

    Used as a context manager around one run; what it started is stopped at the end. The demo's
    rules and producers are the same for every broker (`shield/cli/demo/script.py`).
    """

    orders: ClassVar[str]
    """A destination whose rule sends what is over the limit to `overflow`."""
    overflow: ClassVar[str]
    """Where that goes."""
    audit: ClassVar[str]
    """A destination whose rule lets what is over the limit wait."""
    next_steps: ClassVar[Mapping[str, str]]
    """What to try next, each a command or a line of code, and what it does."""
    title: str
    """Which broker this is, for the head of the screen; known once it is entered."""
    queue: DemoQueue | None = None
    """Known once it is entered; None where the client's own queue is not shown."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Start the broker, or reach it; ShieldError says what is missing."""

    @abstractmethod
    def __exit__(self, *exception: object) -> None:
        """Stop what was started."""

    @abstractmethod
    def producer(self, shield: ShieldT_contra, name: str, destination: str) -> DemoProducer:
        """Return a producer of that name which sends there, ready to send."""

    @abstractmethod
    def count(self, destination: str) -> int:
        """Count the messages of this run that the broker holds there, read back to its end.

        Reads with a client of another make than the producers', and does not ask Shield. Called
        again and again by one thread while producers send.
        """
