"""`blocked = "over_limit"`: a connection that the broker has blocked is over its limit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Literal

from shield import Message, Policy, Refusal, StrictModel, hookimpl


class BlockedSettings(StrictModel):
    """What it means that the broker has blocked a connection."""

    means: Literal["over_limit"]
    """`over_limit`: messages take the chain while it lasts, and do not wait in the client."""


class Blocked(Policy):
    """Refuses while the broker takes nothing from this connection.

    RabbitMQ blocks a connection that publishes during a memory or disk alarm
    (`connection.blocked`, https://www.rabbitmq.com/docs/connection-blocked), and says when it is
    over; who waits is let in then. What was handed to the client before it was blocked stays
    there. RabbitMQ says nothing before the connection has published something, nor when it slows
    a connection down by credit flow: `queue` and `confirm_window` notice that.

    Example:
        blocked = "over_limit"
    """

    Settings = BlockedSettings
    directions = frozenset({"publish"})
    shorthand = "means"
    listens = True
    goes_by = frozenset({"blocked"})

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit unless the connection is known to be blocked."""
        signals = message.signals
        if signals is None or not signals.blocked:
            return None
        return Refusal(self, "blocked by the broker", None)

    def line(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `blocked`."""
    return {"blocked": Blocked}
