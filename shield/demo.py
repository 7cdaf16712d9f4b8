"""What an adapter brings along so that `shield demo` can show its client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, Self

from shield.shield import Shield


class DemoProducer(Protocol):
    """One shielded producer of the demo, used by one thread."""

    def send(self, destination: str, body: bytes) -> object:
        """Publish as the client does; `OverLimitError` where the rule's chain says so."""
        ...

    def close(self) -> object:
        """Return when everything sent is answered, or the broker has been given up."""
        ...


class Demo(ABC):
    """One broker with a shielded client: an embedded broker, or a real one that is named.

    Used as a context manager around one run; what it started is stopped at the end. The demo's
    rules and producers are the same for every broker (`shield/cli/demo_script.py`).
    """

    orders: ClassVar[str]
    """A destination whose rule sends what is over the limit to `overflow`."""
    overflow: ClassVar[str]
    """Where that goes."""
    audit: ClassVar[str]
    """A destination whose rule lets what is over the limit wait."""
    drop_in: ClassVar[str]
    """The one line of a service that changes, to be tried next."""
    title: str
    """Which broker this is, for the head of the screen; known once it is entered."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Start the broker, or reach it; ShieldError says what is missing."""

    @abstractmethod
    def __exit__(self, *exception: object) -> None:
        """Stop what was started."""

    @abstractmethod
    def producer(self, shield: Shield, name: str) -> DemoProducer:
        """Return a producer of that name, connected."""

    @abstractmethod
    def count(self, destination: str) -> int:
        """Count the messages of this run that the broker holds there, read back to its end.

        Reads with a client of another make than the producers', and does not ask Shield. Called
        again and again by one thread while producers send.
        """
