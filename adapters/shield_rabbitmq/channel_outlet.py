"""What happens to one message over the limit that was published through a user's channel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from shield import OverLimit, Permit
from shield.action import Divert
from shield_rabbitmq.errors import DeliveryUnknownError, OverLimitError
from shield_rabbitmq.guard import text_of
from shield_rabbitmq.outlet import RabbitOutlet
from shield_rabbitmq.parcel import Parcel, body_of
from shield_rabbitmq.relays import relay_for
from shield_rabbitmq.sending import Confirm

log = logging.getLogger("shield.rabbitmq")
CONFIRMED_WITHIN_S = 30.0
"""How long the caller of a BlockingChannel waits for an overflow send to be confirmed."""


class ChannelOutlet:
    """Carries out the steps of a chain. The channel's own publish stays what it is.

    What goes elsewhere needs a confirm, and must not close the user's channel where its exchange
    is missing: so it goes through a `Publisher` on a connection of its own, and there the chain
    goes on where that fails.

    Args:
        channel: the shielded channel.
        publish: publishes through the channel, and sees to the permit.
        exchange, routing_key, body, properties: as the caller gave them.
    """

    def __init__(
        self,
        channel: Any,
        publish: Callable[[Permit], None],
        exchange: Any,
        routing_key: Any,
        body: Any,
        properties: Any,
    ) -> None:
        self._channel = channel
        self._publish = publish
        self._message = exchange, routing_key, body, properties

    def send(self, permit: Permit) -> Confirm:
        """Publish through the channel, as it was meant."""
        self._publish(permit)
        return _done("sent")

    def drop(self, over: OverLimit) -> Confirm:
        """Let the publish return None, as any other."""
        return _done("dropped")

    def may_wait(self) -> bool:
        """On a BlockingChannel; an event loop is never blocked."""
        return bool(self._channel._shield_waits)

    def error(self, over: OverLimit) -> Exception:
        """Return an error that is also an AMQPError."""
        return OverLimitError(over.rule.name, over.policy, over.reason, over.retry_after_s)

    def divert(self, over: OverLimit, step: Divert, position: int) -> Confirm | None:
        """Send to the overflow exchange through a connection of its own."""
        exchange, routing_key, body, properties = self._message
        try:
            address = text_of(exchange), text_of(routing_key)
            parcel = Parcel(*address, body_of(body), properties, mandatory=True)
        except TypeError:  # properties that pika cannot encode
            step.done()
            return None
        relay = relay_for(self._channel.connection, over.shield)
        return RabbitOutlet(relay, parcel, properties).divert(over, step, position)

    def ended(self, future: Confirm) -> str:
        """Return what became of the message; on a BlockingChannel wait until it is there.

        Raises:
            OverLimitError: its overflow send failed, and the chain behind it ended in `raise`.
            DeliveryUnknownError: nobody can tell whether it is there.
        """
        if not self.may_wait():
            future.add_done_callback(_log_failure)
            return future.shield_fate
        try:
            future.result(CONFIRMED_WITHIN_S)
        except TimeoutError:
            raise DeliveryUnknownError(
                f"an overflow send was not confirmed in {CONFIRMED_WITHIN_S:.0f} s; "
                "it may arrive yet"
            ) from None
        return future.shield_fate


def _done(fate: str) -> Confirm:
    future = Confirm()
    future.shield_fate = fate
    future.set_result(None)
    return future


def _log_failure(future: Future[None]) -> None:
    error = future.exception()
    if error is not None:
        log.error("a message published through an event loop's channel was not sent: %s", error)
