"""What one channel receives under the rules of one Shield."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel

from shield import Outcome, Shield
from shield_rabbitmq.client import internals
from shield_rabbitmq.consuming.delivery_tags import DeliveryTags

Terms = tuple[Shield, str]
"""Whose rules, and who receives, to quotas and ledger."""
Item = tuple[Any, Any, Any]
"""Method, properties and body, as pika gives them to who asks for a message."""


class SessionQueue(ABC):
    """What a session asks of what one consumer was given and has not handed over."""

    auto_ack: bool
    ended = False
    """Whether nothing is handed over from here any more."""

    @property
    @abstractmethod
    def waits_for_an_ack(self) -> bool:
        """Whether the next may be handed over once something is acknowledged."""

    @property
    @abstractmethod
    def diverting(self) -> int:
        """How many are on their way elsewhere."""

    @abstractmethod
    def look_again(self, wait_s: float) -> None:
        """Hear when to go on: so many seconds from now."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many are held back."""

    @abstractmethod
    def hand_back(self) -> None:
        """Give all that is held back to the broker."""

    @abstractmethod
    def forget(self) -> None:
        """Note that the broker has all of it again: nothing is to be acknowledged any more."""


class ConsumerSession:
    """Keeps what a channel was given apart from what its user was handed, and from his acks.

    Args:
        channel: the shielded channel, as its user holds it.
        beneath: pika's own side of it, whose acknowledgements are written and not waited for.
        prefetch: returns what new consumers would get; None or 0 for no bound.
    """

    def __init__(self, channel: Any, beneath: Any, prefetch: Callable[[], int | None]) -> None:
        self.channel = channel
        self.beneath = beneath
        self.prefetch = prefetch
        self.tags = DeliveryTags()
        self.queues: set[SessionQueue] = set()
        """Those that hold something back, or have something on its way elsewhere."""
        self.by_tag: dict[str, SessionQueue] = {}
        """The consumers with a callback, by consumer tag."""
        self.generator_queue: SessionQueue | None = None
        """What the generator of `consume` draws from."""
        self.dispatches = isinstance(channel, BlockingChannel)
        """Whether messages are read first, and handed over afterwards."""
        self.open = True
        self.asks_later = False
        """Whether a `basic_get` on an event loop has begun that is yet to ask."""
        self._then: Callable[[], None] | None = None
        beneath.add_on_close_callback(self._closed)

    def passed_on(self, callback: Callable[..., Any], auto_ack: bool) -> Callable[..., Any]:
        """Return a callback for messages that no rule is about: they are noted as handed over."""
        handed = self.tags.handed

        def noted(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            handed[method.delivery_tag] = None
            callback(channel, method, properties, body)

        return callback if auto_ack else noted

    def got(self, item: Item, auto_ack: object) -> Item:
        """Note what `basic_get` has brought of a queue that no rule is about."""
        if item[0] is not None and not auto_ack:
            self.tags.handed[item[0].delivery_tag] = None
        return item

    # --- acknowledgements ---------------------------------------------------------------------

    def settled(self, tags: list[int], outcome: Outcome) -> None:
        """Note what the user has said of messages that he had."""
        self.tags.settle(tags, outcome)
        self.freed()

    def freed(self) -> None:
        """Let those go on that wait for something to be acknowledged."""
        for each in self.queues:
            if each.waits_for_an_ack:
                each.look_again(0.0)

    def pieces(self, tag: int) -> list[tuple[int, bool]] | None:
        """Return what is to be said instead of "all up to here"; None for just that."""
        return self.tags.pieces(tag, internals.first_undispatched(self.channel))

    def nothing_diverting(self) -> bool:
        """Tell whether all that was sent elsewhere has been answered."""
        return not any(each.diverting for each in self.queues)

    def once_nothing_diverting(self, then: Callable[[], None]) -> None:
        """Call back, once, when all that was sent elsewhere has been answered."""
        self._then = then

    def left(self) -> None:
        """Hear that something sent elsewhere has been answered, and acknowledged or requeued."""
        if self._then is not None and self.nothing_diverting():
            then, self._then = self._then, None
            then()

    def recovered(self) -> None:
        """Note that the broker sends all that is not acknowledged once more."""
        for each in self.queues.union(self.by_tag.values()):
            if not each.auto_ack:
                each.forget()
        self.tags.forget()

    def _closed(self, *_reason: object) -> None:
        """Note that the broker has again what is not acknowledged, and nobody what needs no ack."""
        self.open = False
        for each in self.queues.union(self.by_tag.values()):
            each.forget()
        self.tags.forget()
