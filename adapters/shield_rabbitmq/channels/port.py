"""What happens to one message over the limit that was published through a user's channel."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from typing import Any

from shield import Envelope, OverLimit, Permit, Shield
from shield.action import Divert
from shield.chain.blocking import result_within
from shield.clients.pending import MessagePort
from shield.transport import Done, Transport
from shield_rabbitmq.channels.channel_state import text_of
from shield_rabbitmq.client.errors import RabbitMQDeliveryUnknownError, RabbitMQOverLimitError
from shield_rabbitmq.client.frames import Frames, body_of
from shield_rabbitmq.connection.pending_publish import Confirm
from shield_rabbitmq.publishing.port import PublisherPort
from shield_rabbitmq.publishing.relay_pool import relay_for

log = logging.getLogger("shield.rabbitmq")
CONFIRMED_WITHIN_S = 30.0
"""How long the caller of a BlockingChannel waits until a message that goes elsewhere is there."""


class ChannelPort(MessagePort[Confirm]):
    """Carries out the steps of a chain for one message. The channel's own publish stays as it is.

    What goes elsewhere needs a confirm, and must not close the user's channel where its exchange
    is missing. So it goes through a relay, a `Publisher` on a connection of its own; the chain
    goes on there where that fails, and what was kept comes back that way.

    Args:
        channel: the shielded channel.
        shield: whose rule refused.
        producer: who publishes.
        publish: publishes through the channel, and settles the permit.
        call: exchange, routing key, body, properties and mandatory, as the caller gave them.
        blocking: whether its caller may be blocked.
        deaf: whether nothing can end the refusal but what this channel would have to hear.
    """

    over_limit_error = RabbitMQOverLimitError

    def __init__(
        self,
        channel: Any,
        shield: Shield,
        producer: str,
        publish: Callable[[Permit], None],
        call: tuple[Any, ...],
        *,
        blocking: bool,
        deaf: bool,
    ) -> None:
        self._channel = channel
        self._shield = shield
        self._producer = producer
        self._publish = publish
        self._call = call
        self._blocking = blocking
        self._deaf = deaf
        self._caller = threading.get_ident()

    # --- on the caller's thread ---------------------------------------------------------------

    def send(self, permit: Permit) -> Confirm:
        """Publish through the channel; from another thread, where that is not allowed, relayed."""
        if not self._is_callers:
            return self._relayed.send(permit)
        self._publish(permit)
        return _done("sent")

    def drop(self, over: OverLimit) -> Confirm:
        """Let the publish return as any other."""
        return _done("dropped")

    def may_wait(self) -> bool:
        """With a BlockingChannel; an event loop is never blocked.

        Not for what its own thread would have to hear: that does not listen while it waits.
        """
        return self._is_callers and self._blocking and not self._deaf

    def ended(self, future: Confirm) -> str:
        """Return the message's fate; with a BlockingChannel, once it is where it went.

        Not once it is sent where it is buffered: nobody can wait for that.

        Raises:
            OverLimitError: it could not go there, and the chain behind it ended in `raise`.
            DeliveryUnknownError: nobody can tell whether it is there.
        """
        if not self._blocking or future.shield_fate == "buffered":
            future.add_done_callback(_log_failure)
            return future.shield_fate
        try:
            result_within(future, CONFIRMED_WITHIN_S)
        except TimeoutError:
            raise RabbitMQDeliveryUnknownError(
                f"a message to be {future.shield_fate} was not confirmed in "
                f"{CONFIRMED_WITHIN_S:.0f} s; it may arrive yet"
            ) from None
        return future.shield_fate

    @property
    def _is_callers(self) -> bool:
        return threading.get_ident() == self._caller

    # --- elsewhere ----------------------------------------------------------------------------

    @cached_property
    def _relayed(self) -> PublisherPort:
        exchange, routing_key, body, properties, mandatory = self._call[:5]
        address = text_of(exchange), text_of(routing_key)
        frames = Frames(*address, body_of(body), properties, bool(mandatory))
        relay = relay_for(self._channel.connection, self._shield, self._producer)
        return PublisherPort(relay.sender, relay.transport, frames)

    @property
    def client(self) -> Transport:
        """The relay: what is kept goes back through it."""
        return self._relayed.client

    def may_leave(self) -> bool:
        """Tell whether it can be encoded: else pika is to say what is wrong with it."""
        try:
            return self._relayed.may_leave()
        except (TypeError, ValueError):
            return False

    def divert(self, over: OverLimit, step: Divert, ended: Done) -> Confirm | None:
        """Send to the overflow exchange, relayed."""
        return self._relayed.divert(over, step, ended) if self.may_leave() else None

    def envelope(self) -> Envelope:
        """Return the message with its properties as they go on the wire."""
        return self._relayed.envelope()

    def pending(self, fate: str) -> Confirm:
        """Return what the caller's publish waits for, or goes on without."""
        return self._relayed.pending(fate)

    def succeed(self) -> None:
        """Complete it."""
        self._relayed.succeed()

    def fail(self, error: Exception) -> None:
        """Fail it."""
        self._relayed.fail(error)

    def follow(self, result: Confirm) -> None:
        """Complete it as what the channel itself has published."""
        if result is not self._relayed.pending(result.shield_fate):
            self._relayed.succeed()


def _done(fate: str) -> Confirm:
    future = Confirm()
    future.shield_fate = fate
    future.set_result(None)
    return future


def _log_failure(future: Future[None]) -> None:
    error = future.exception()
    if error is not None:
        log.error("a message that was published through a channel was not sent: %s", error)
