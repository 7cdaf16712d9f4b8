"""What a policy may do beside its four methods: inherit these classes together with `Policy`.

Each says when Shield calls its methods: under its lock, as those of `Policy`. Which policies have
which capability is looked up once, when a rule is compiled; what is not inherited is not called.

    class Pool(shield.Policy, capabilities.BoundsInFlight, capabilities.Observable): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from shield.message import Message
    from shield.policy import Policy
    from shield.verdict import Refusal


class Validates(ABC):
    """Has settings that may be impossible together with the rest of its rule."""

    @abstractmethod
    def validate(self) -> None:
        """Raise ValueError where they are: `self.rule` has all its policies and actions."""


class Queues:
    """Tells what messages compete for, and how long those ahead take; else all are one queue."""

    def queue_key(self, message: Message) -> Hashable:
        """Return what the message competes for: those of one key wait first come, first served."""
        return None

    def drain_time_s(self, messages: int, size: int) -> float | None:
        """Return the seconds it takes to admit so many messages of so many bytes together.

        None where that is not a matter of time.
        """
        return None


class Paces(ABC):
    """Holds admitted messages back a little before they are sent."""

    @abstractmethod
    def delay_s(self, message: Message, now: float) -> float:
        """Return for how many seconds; must change nothing.

        Comes after `acquire`. Of several policies' delays the longest counts. A thread that may
        not wait, as a client's own I/O thread, does not.
        """


class BoundsInFlight:
    """Bounds what may be unanswered at once, so that a client needs no bound of its own."""

    def max_in_flight(self) -> int | None:
        """Return how many messages that ever are; None for a bound that is none in messages.

        A RabbitMQ consumer is pushed no more than that.
        """
        return None


class ReadsSignals:
    """Decides by what the broker tells the client: `message.signals`."""

    required_signals: ClassVar[frozenset[str]] = frozenset()
    """Which it has no meaning without, as `shield.Signals` names them.

    A client that never tells one of them refuses to publish what comes under such a rule.
    """
    wakes_on_signal: ClassVar[bool] = True
    """Whether a change of them can end its refusal: who waits then asks again."""


class LimitsSojourn(ABC):
    """Limits for how long a message may stand in a queue of Shield's own.

    RabbitMQ's write thread has one, and each consumer has one.
    """

    @abstractmethod
    def check_waiting(self, message: Message, waited_s: float, now: float) -> Refusal | None:
        """Return None to let a message wait on, or go; or refuse it after all, as `check` would.

        Asked of an admitted message that stands first and has waited so long: when one is to leave
        the queue, and several times a second while none can. Not asked of what was diverted before,
        or is kept in order. What it refuses is cancelled, and goes on in the chain. Asked as well
        of the delivery that stands first in a consumer's queue, whether others refuse it or not.
        """

    def newest_first(self, message: Message, now: float) -> bool:
        """Return whether that queue is to let those go first that came last."""
        return False


class FollowsDiversion(ABC):
    """Follows which messages are diverted: buffered, spooled or sent elsewhere."""

    @abstractmethod
    def on_diverted(self, message: Message) -> None:
        """Hear that the message is being diverted, before it is."""

    @abstractmethod
    def on_returned(self, message: Message) -> None:
        """Hear that it is not any more: delivered, at another end, or never begun."""


class SeesOffers(ABC):
    """Must know of what is refused as well."""

    @abstractmethod
    def on_offer(self, message: Message, now: float) -> None:
        """Hear of a message that is offered: once, before `check`, whatever becomes of it.

        What was diverted is not offered anew when it comes back.
        """


class Randomized(SeesOffers):
    """Refuses by chance, drawn once for a message: in `on_offer`, kept in `message.draw`."""

    @abstractmethod
    def rejection_share(self, message: Message, now: float) -> float:
        """Return which part, 0 to 1, of what is offered now it would refuse.

        Where another policy of its rule `SelectsVictims`, that one refuses this part.
        """


class SelectsVictims:
    """Chooses who is refused; how much is, the others of its rule say: `Observable`, `Randomized`.

    These leave it to this one whom it hits.
    """


class Observable(ABC):
    """Says more of its state than that it refuses; others are far, or over the limit."""

    @abstractmethod
    def pressure(self, message: Message, now: float) -> float:
        """Return how near messages like this one are to being refused: 0 is far, 1 is refused.

        Must change nothing. `Shield.pressure` shows it, and `shed` goes by it.
        """

    def status(self, now: float) -> Mapping[str, float | str | None]:
        """Return what may be shown of its state, by name; None for what is not known."""
        return {}


class CarriesOver(ABC):
    """Keeps what it has learned where a policy with the same settings takes its place."""

    @abstractmethod
    def carry_over(self, old: Policy) -> None:
        """Take over the state of the predecessor, after a fork; nothing is in flight."""
