"""What a policy is: one question about one message now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from shield.settings_model import StrictModel
from shield.verdict import Outcome, Refusal

if TYPE_CHECKING:
    from shield.message import Message
    from shield.rule import Rule

KeyOf = Callable[["Message"], Hashable]
PUBLISH = frozenset({"publish"})
CONSUME = frozenset({"consume"})
BOTH = PUBLISH | CONSUME


@dataclass(frozen=True, slots=True)
class Traits:
    """What Shield may do with a policy, and where it has a meaning."""

    directions: frozenset[str] = BOTH
    """In rules of which direction: `shield.policy.PUBLISH`, `CONSUME` or `BOTH`."""
    batchable: bool = False
    """Whether it knows messages by destination, producer and size alone, and keeps none of them.

    Then a batch can be decided on, or released, at once: `message.messages` are that many.
    """
    deferred_settlement: bool = False
    """Whether `release` may come a little after the answer, with a later `now`; it is cheaper."""
    counts_as_load: bool = True
    """Whether its refusals tell of load: while they come, nothing is redriven by itself."""


class Policy(ABC):
    """Admits a message or refuses it. Never sleeps, sends or raises; never does I/O.

    The Shield calls every method under its lock: `check` of all policies that cover the message,
    then, only when none refused, `acquire` of all, then `release` of all when the message's outcome
    is known. `cancel` undoes an `acquire` whose send never began. What else a policy may do it
    says by inheriting a class of `shield.capabilities` as well.

    An exception from outside, as Ctrl-C or a worker's time limit, can strike within any of them:
    where a function begins, after a call, where a loop begins again. Then `acquire`, `cancel` and
    `release` are to have done nothing; `release` is called again. So what changes the account of
    what is held stands together, at the end, behind all calls.

    A policy that raises is isolated: counted, logged once a minute, and treated as
    `on_plugin_error` says ("open": as if it had admitted; "closed": as if it had refused).

    Example:
        >>> class OnlySmall(Policy):
        ...     class Settings(StrictModel):
        ...         most: int = 1024
        ...
        ...     def check(self, message, now):
        ...         if message.size > self.settings.most:
        ...             return self.refuse("too large", float("inf"))
    """

    Settings: ClassVar[type[BaseModel]] = StrictModel
    """The model of the table that a rule gives this policy."""
    shorthand: ClassVar[str | None] = None
    """The field that a bare value stands for: `quota = "500/s"` is `quota = {rate = "500/s"}`."""
    traits: Traits = Traits()
    """Of the class; `__init__` may give the policy others, by its settings."""

    def __init__(self, settings: Any, rule: Rule, name: str) -> None:
        self.settings = settings
        self.rule = rule
        self.name = name

    @abstractmethod
    def check(self, message: Message, now: float) -> Refusal | None:
        """Return None to admit, or `self.refuse(...)`. Must change nothing."""

    def acquire(self, message: Message, now: float) -> None:  # noqa: B027 - optional
        """Charge the message: it is admitted. Comes right after `check` of the same message."""

    def cancel(self, message: Message) -> None:  # noqa: B027 - optional
        """Undo `acquire`: the message's send never began."""

    def release(self, message: Message, outcome: Outcome, now: float) -> None:  # noqa: B027
        """Learn the message's outcome; release what it held."""

    def refuse(self, reason: str, retry_after_s: float | None = None) -> Refusal:
        """Return a refusal; `retry_after_s` is None where only others' answers can end it."""
        return Refusal(self, reason, retry_after_s)
