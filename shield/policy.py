"""What a policy is: one question about one message now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from shield.settings_model import StrictModel
from shield.verdict import Outcome, Refusal

if TYPE_CHECKING:
    from shield.message import Message
    from shield.rule import Rule

KeyOf = Callable[["Message"], Hashable]


class Policy(ABC):
    """Admits a message or refuses it. Never sleeps, sends or raises; never does I/O.

    The Shield calls every method under its lock, in this order: `offered`, then `check` of all
    policies that cover the message, then, only when none refused, `take` of all, then `settle` of
    all when the message's fate is known. `give_back` undoes a `take` whose send never began.

    An exception from outside, as Ctrl-C or a worker's time limit, can strike within any of them:
    where a function begins, after a call, where a loop begins again. Then `take`, `give_back` and
    `settle` are to have done nothing; `settle` is called again. So what changes the account of
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

    patient: ClassVar[bool] = False
    """Whether `settle` may come a little after the answer, with a later `now`; that is cheaper."""
    tells_of_load: ClassVar[bool] = True
    """Whether its refusals tell of load: while they come, nothing is redriven by itself."""
    bounds: ClassVar[bool] = False
    """Whether it bounds what may be unanswered at once, instead of a client's own bound."""
    listens: ClassVar[bool] = False
    """Whether a change of `message.signals` can end its refusal: who waits then asks again."""
    goes_by: ClassVar[frozenset[str]] = frozenset()
    """Which signals it has no meaning without; a client that never tells one of them says so."""

    directions: ClassVar[frozenset[str]] = frozenset({"publish", "consume"})
    """In rules of which direction it has a meaning."""
    runs: bool = False
    """Whether it knows messages by destination, producer and size alone, and keeps none of them.

    Then a run of many can be decided on, or settled, at once: `message.messages` are that many.
    """
    chooses: ClassVar[bool] = False
    """Whether it chooses who is refused, by what the others of its rule say is too much."""

    def __init__(self, settings: Any, rule: Rule, name: str) -> None:
        self.settings = settings
        self.rule = rule
        self.name = name

    def offered(self, message: Message, now: float) -> None:  # noqa: B027 - optional
        """Hear of a message that is offered: once, before `check`, whatever becomes of it.

        For policies that must know of what is refused as well. What was set aside is not offered
        anew when it comes back.
        """

    def validate(self) -> None:  # noqa: B027 - optional
        """Raise ValueError where the settings are impossible in this rule, whose chain is known."""

    @abstractmethod
    def check(self, message: Message, now: float) -> Refusal | None:
        """Return None to admit, or `self.refuse(...)`. Must change nothing."""

    def take(self, message: Message, now: float) -> None:  # noqa: B027 - optional
        """Charge the message: it is admitted. Comes right after `check` of the same message."""

    def give_back(self, message: Message) -> None:  # noqa: B027 - optional
        """Undo `take`: the message's send never began."""

    def delay_s(self, message: Message, now: float) -> float:
        """Return the seconds that an admitted message is to be held back before it is sent.

        Comes after `take`, and must change nothing. Of several policies' delays the longest
        counts. A thread that may not wait, as a client's own I/O thread, does not.
        """
        return 0.0

    def waited(self, message: Message, waited_s: float, now: float) -> Refusal | None:
        """Return None to let a message wait on, or go; or refuse it after all, as `check` would.

        Asked of an admitted message that stands first in a queue of Shield's own (RabbitMQ's write
        thread has one) and has waited so long: when one is to leave it, and several times a second
        while none can. Not asked of what was set aside before, or is kept in order. What it
        refuses is given back, and goes on in the chain. Asked as well of the delivery that stands
        first in a consumer's queue, whether others refuse it now or not.
        """
        return None

    def newest_first(self, message: Message, now: float) -> bool:
        """Return whether that queue is to let those go first that came last."""
        return False

    def settle(self, message: Message, outcome: Outcome, now: float) -> None:  # noqa: B027
        """Learn the message's fate; release what it held."""

    def hold(self, message: Message) -> None:  # noqa: B027 - optional
        """Hear that the message is being set aside: buffered, spooled or sent elsewhere."""

    def let_go(self, message: Message) -> None:  # noqa: B027 - optional
        """Hear that a message that was set aside is delivered, or came to another end."""

    def line(self, message: Message) -> Hashable:
        """Return what the message competes for: those of one line wait first come, first served."""
        return None

    def wait_s(self, messages: int, size: int) -> float | None:
        """Return the seconds it takes to admit so many messages of so many bytes together.

        None where that is not a matter of time.
        """
        return None

    def most_unanswered(self) -> int | None:
        """Return how many messages it ever lets be unanswered at once; None for no such bound.

        A RabbitMQ consumer is pushed no more than that.
        """
        return None

    def pressure(self, message: Message, now: float) -> float:
        """Return how near messages like this one are to being refused: 0 is far, 1 is refused.

        Must change nothing. `Shield.pressure` shows it, and `shed` goes by it.
        """
        return 0.0 if self.check(message, now) is None else 1.0

    def excess(self, message: Message, now: float) -> float:
        """Return which part, 0 to 1, of what is offered now it would refuse by chance.

        Where another policy of its rule `chooses`, that one refuses this part.
        """
        return 0.0

    def status(self, now: float) -> Mapping[str, float | str | None]:
        """Return what may be shown of its state, by name; None for what is not known."""
        return {}

    def inherit(self, old: Policy) -> None:  # noqa: B027 - optional
        """Take over the state of this policy's predecessor with the same settings, after a fork."""

    def refuse(self, reason: str, retry_after_s: float | None = None) -> Refusal:
        """Return a refusal; `retry_after_s` is None where only others' answers can end it."""
        return Refusal(self, reason, retry_after_s)

    @classmethod
    def overrides(cls, method: str) -> bool:
        """Tell whether this class does something of its own there, so that it must be called."""
        return getattr(cls, method) is not getattr(Policy, method)
