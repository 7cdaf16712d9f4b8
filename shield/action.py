"""What an action is: the reaction to a message over the limit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from shield.settings_model import StrictModel

if TYPE_CHECKING:
    from shield.rule import Rule
    from shield.transport import Source, Transport
    from shield.url import URL
    from shield.verdict import Engine, OverLimit


@dataclass(frozen=True, slots=True)
class Drop:
    """Count the message as dropped and hand its caller a result that says so."""


@dataclass(frozen=True, slots=True)
class Raise:
    """Raise `OverLimitError` to the message's caller."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Stand in line until the policies admit the message, `limit_s` seconds at the most.

    A consumer leaves the message with its broker meanwhile, and what comes behind it as well.
    """

    limit_s: float


@dataclass(frozen=True, slots=True)
class Retry:
    """Ask again `times` times at the most, each after a pause, as the retry budget allows."""

    times: int


@dataclass(frozen=True, slots=True)
class Divert:
    """Send the message to `destination` instead; `done` is called once when that send has ended.

    Through `transport` where the destination is on another broker, or no broker at all.
    """

    destination: str
    done: Callable[[], None]
    transport: Transport | None = None
    declare: bool = False
    """Whether a client that can make a destination which is missing may do so."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Hand the message to `keeper`, which ends it; its caller has a future meanwhile.

    The keeper is given a `shield.chain.retained.Retained`.

    `fate` is what `shield.fate` says of it: `buffered` or `spooled`. The keeper may not decline
    any more; where it cannot keep the message after all, it lets the chain go on.
    """

    fate: str
    keeper: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Decline:
    """Hand on to the chain's next action, as None does, and tell an error why."""

    why: str


Step = Drop | Raise | Wait | Retry | Divert | Keep | Decline


class Action(ABC):
    """Says what is to be done with a message over the limit; the adapter does it.

    An action does no I/O and counts nothing: it returns a step, which a synchronous or an
    asynchronous client carries out, or None to decline and hand on to the chain's next action.

    Example:
        >>> class DropLarge(Action):
        ...     class Settings(StrictModel):
        ...         above: int = 1024
        ...
        ...     argument = "above"  # `drop_large 4096`
        ...
        ...     def step(self, over):
        ...         return Drop() if over.message.size > self.settings.above else None
    """

    Settings: ClassVar[type[BaseModel]] = StrictModel
    """The model of the action's table; the text form fills its field `argument`."""
    argument: ClassVar[str | None] = None
    """The field that the words after the action's name fill; None where it takes none."""
    one_word: ClassVar[bool] = False
    """Whether they are one word, as a name is: more are a mistake. A table's text may be any."""
    final: ClassVar[bool] = False
    """Whether it never declines, so that nothing may follow it."""
    directions: ClassVar[frozenset[str]] = frozenset({"publish", "consume"})
    """In rules of which direction it has a meaning."""
    sets_aside: ClassVar[bool] = False
    """Whether its messages may come back later: it keeps them, or sends them elsewhere."""
    returns: ClassVar[bool] = True
    """Whether what it sets aside comes back by itself; else with `redrive = "auto"` alone."""

    def __init__(self, settings: Any, rule: Rule, name: str) -> None:
        self.settings = settings
        self.rule = rule
        self.name = name

    def validate(self) -> None:  # noqa: B027 - optional
        """Raise ValueError where the settings are impossible in this rule."""

    @property
    def destination(self) -> str | None:
        """Where it sends messages to, for `shield setup`; None where it sends none."""
        return None

    @abstractmethod
    def step(self, over: OverLimit) -> Step | None:
        """Return what is to be done, or `Decline(why)` or None to decline.

        Called without the Shield's lock.
        """

    # An action that sends messages elsewhere says how they come back.

    @property
    def place(self) -> URL | None:
        """The URL of where it sends messages, where that is one; None for other destinations."""
        return None

    def places(self, engine: Engine) -> Sequence[URL]:
        """Return the URLs of where its messages are, for `shield redrive RULE`."""
        return [] if self.place is None else [self.place]

    def way_back(self, client: Transport) -> Source:
        """Return what reads back what it has sent elsewhere for that client.

        For `redrive = "auto"`, which a rule may say that has such an action in its chain.

        Raises:
            ShieldError: that cannot be read.
        """
        raise NotImplementedError

    # An action that keeps messages lives as long as the clients whose messages it keeps.

    def opened(self, client: Transport, engine: Engine) -> None:  # noqa: B027 - optional
        """Hear of a new client under this engine: what was kept for its broker may go to it."""

    def flush(self, client: Transport, timeout_s: float | None) -> None:  # noqa: B027 - optional
        """Return when nothing of that client is kept in memory any more, or the time is over."""

    def closing(self, client: Transport, timeout_s: float | None) -> None:  # noqa: B027 - optional
        """Release a client that is about to close: send, keep or hand on what is left of it.

        Messages of that client may still come, where a send fails as it closes and the chain goes
        on: where they would have to wait for the client, their chain continues at once.
        """

    @classmethod
    def overrides(cls, method: str) -> bool:
        """Tell whether this class does something of its own there, so that it must be called."""
        return getattr(cls, method) is not getattr(Action, method)
