"""`order = "key"`: what has one message set aside sends no other past it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Literal

from shield import Message, Policy, Refusal, Rule, StrictModel, Traits, hookimpl
from shield.capabilities import FollowsDiversion, Queues, Validates
from shield.policy import PUBLISH


class OrderSettings(StrictModel):
    """What is kept in order."""

    by: Literal["key"] = "key"
    """`key`: messages of one Kafka topic and key, or of one RabbitMQ exchange and routing key."""


class Order(Policy, Validates, Queues, FollowsDiversion):
    """Refuses a message whose key has one set aside, so that it goes the same way, behind it.

    Once a message is buffered, spooled or overflowed, later ones of its key follow it until it is
    back; those of other keys, and on Kafka those without a key, pass. Knows of what this process
    has set aside.
    """

    Settings = OrderSettings
    traits = Traits(directions=PUBLISH, counts_as_load=False)
    shorthand = "by"

    def __init__(self, settings: OrderSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._aside: Counter[Hashable] = Counter()

    def validate(self) -> None:
        """Refuse a chain in which messages of one key could go two ways, or not come back."""
        aside = [action for action in self.rule.chain if action.sets_aside]
        if len(aside) > 1:
            names = " and ".join(action.name for action in aside)
            raise ValueError(
                f"over_limit has {names}, between which a key's messages would lose their order; "
                "allowed is one action that sets messages aside"
            )
        for action in aside:
            if not action.returns and self.rule.redrive is None:
                raise ValueError(
                    f"over_limit has {action.name}, from which messages do not come back by "
                    'themselves; allowed is redrive = "auto" beside it'
                )

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit what is itself on its way back, and what has no other of its key set aside."""
        if not self._aside or message.aside or self._aside[_key_of(message)] == 0:
            return None
        return self.refuse("its key is set aside")

    def on_diverted(self, message: Message) -> None:
        """Count one more of its key."""
        key = _key_of(message)
        if key is not None:
            self._aside[key] += 1

    def on_returned(self, message: Message) -> None:
        """Count one less; what an earlier process had set aside was never counted."""
        key = _key_of(message)
        if self._aside[key] > 1:
            self._aside[key] -= 1
        else:
            del self._aside[key]

    def queue_key(self, message: Message) -> Hashable:
        """Those of one key wait behind each other."""
        return _key_of(message)


def _key_of(message: Message) -> Hashable:
    """Return whose order is kept; None for a message that may go at any time."""
    if message.routing_key is not None:
        return message.destination
    return None if message.key is None else (message.destination, message.key)


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `order`."""
    return {"order": Order}
