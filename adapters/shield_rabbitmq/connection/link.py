"""One connection with one confirming channel, made again whenever it is lost."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Protocol

from pika import SelectConnection
from pika.adapters.select_connection import IOLoop
from pika.connection import Parameters
from pika.exceptions import (
    AuthenticationError,
    ChannelClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from shield import Signals
from shield.algorithms.backoff import Backoff
from shield_rabbitmq.client import internals
from shield_rabbitmq.client.frames import CHANNEL

log = logging.getLogger("shield.rabbitmq")
CLOSE_WITHIN_S = 2.0
HOPELESS = (
    AuthenticationError,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
"""What trying again does not mend: a wrong password, user, virtual host or port."""


class Owner(Protocol):
    """Who uses the link; called on the thread that runs the loop."""

    def link_ready(self) -> None:
        """A new channel is there: delivery tags begin with 1."""

    def link_refused(self, error: Exception, hopeless: bool) -> None:
        """An attempt to connect has failed; the next one follows."""

    def link_lost(self, error: Exception) -> None:
        """The connection is gone and being made again."""

    def channel_closed(self, error: ChannelClosedByBroker) -> None:
        """The broker has closed the channel; a new one is being opened."""

    def link_ended(self) -> None:
        """The link was closed and is no more."""

    def wants_link(self) -> bool:
        """Tell whether anything waits to be sent."""

    def confirmed(self, frame: Any) -> None:
        """An ack or a nack has come."""

    def stalled(self, why: str) -> None:
        """The broker takes no messages for now."""

    def returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """An unroutable message has come back."""

    def unblocked(self) -> None:
        """The broker takes messages again."""


class Link:
    """Connects, opens the channel, and does so again with full-jitter backoff.

    Before the first success it tries only while something waits to be sent. Whether the broker
    has blocked the connection it writes into `signals`.
    """

    def __init__(
        self, loop: IOLoop, parameters: Parameters, owner: Owner, signals: Signals
    ) -> None:
        self._loop = loop
        self._parameters = parameters
        self._owner = owner
        self._signals = signals
        self._backoff = Backoff()
        self._closing = self._retired = False
        self._idle = True
        self._connecting: SelectConnection | None = None
        self.was_open = False
        """Whether a connection was ever made."""
        self.connection: SelectConnection | None = None
        """The connection, while its channel can be written to."""

    # --- making it ----------------------------------------------------------------------------

    def want(self) -> None:
        """Connect now, unless that is under way or being waited for."""
        if self._idle:
            self._idle = False
            self._connect()

    def _connect(self) -> None:
        if self._closing:
            return
        try:
            self._connecting = SelectConnection(
                self._parameters,
                on_open_callback=self._opened,
                on_open_error_callback=self._refused,
                on_close_callback=self._lost,
                custom_ioloop=self._loop,
            )
        except Exception as error:  # such as a certificate that cannot be read
            self._refused(None, error)

    def _opened(self, connection: SelectConnection) -> None:
        if self._retired:
            internals.abort(connection)
            return
        self._backoff.reset()
        self.was_open = True
        self._signals.blocked = False
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._open_channel(connection)

    def _open_channel(self, connection: SelectConnection) -> None:
        if connection.is_open:
            connection.channel(channel_number=CHANNEL, on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._owner.returned)
        channel.confirm_delivery(
            self._owner.confirmed, callback=lambda _frame: self._ready(channel)
        )

    def _ready(self, channel: Any) -> None:
        self.connection = channel.connection
        self._owner.link_ready()

    # --- losing it ----------------------------------------------------------------------------

    def _channel_closed(self, channel: Any, reason: Exception) -> None:
        if not isinstance(reason, ChannelClosedByBroker):
            return  # the connection goes, too, and says why
        self.connection = None
        log.warning("the broker closed the publisher's channel: %s", reason)
        # pika frees the channel's number only after this callback.
        self._loop.call_later(0, lambda: self._open_channel(channel.connection))
        self._owner.channel_closed(reason)

    def _refused(self, _connection: object, error: Any) -> None:
        if self._retired:
            return
        self._connecting = None
        if self._closing:
            self._owner.link_ended()
            return
        error = _cause(error)
        self._owner.link_refused(error, isinstance(error, HOPELESS))
        self._try_again(error)

    def _lost(self, _connection: object, error: Any) -> None:
        if self._retired:
            return
        self._connecting = self.connection = None
        self._signals.blocked = None
        self._owner.link_lost(error)
        if self._closing:
            self._owner.link_ended()
        else:
            self._try_again(error)

    def _try_again(self, error: object) -> None:
        delay_s = self._backoff.next_s()
        log.warning("no connection to RabbitMQ (%r); next attempt in %.2f s", error, delay_s)
        self._loop.call_later(delay_s, self._connect_if_wanted)

    def _connect_if_wanted(self) -> None:
        if self.was_open or self._owner.wants_link():
            self._connect()
        else:
            self._idle = True

    # --- blocked ------------------------------------------------------------------------------

    def _on_blocked(self, _connection: object, frame: Any) -> None:
        self._signals.blocked = True
        log.warning("RabbitMQ takes no messages for now: %s", frame.method.reason)
        self._owner.stalled("RabbitMQ takes no messages for now")

    def _on_unblocked(self, _connection: object, _frame: object) -> None:
        self._signals.blocked = False
        log.warning("RabbitMQ takes messages again")
        self._owner.unblocked()

    # --- closing it ---------------------------------------------------------------------------

    def close(self) -> None:
        """End it in good order; the owner hears of it within two seconds."""
        if self._closing:
            return
        self._closing = True
        if self._connecting is None or self._connecting.is_closed:
            self._owner.link_ended()
            return
        self._loop.call_later(CLOSE_WITHIN_S, self.abort)
        if not self._connecting.is_closing:
            self._connecting.close()

    def retire(self) -> None:
        """Cut it, and tell the owner nothing any more."""
        self._closing = self._retired = True
        connection, self.connection = self._connecting, None
        if connection is not None and not connection.is_closed:
            with suppress(Exception):  # it may be what has failed
                internals.abort(connection)

    def abort(self) -> None:
        """Cut it."""
        self._closing = True
        if self._connecting is None or self._connecting.is_closed:
            self._owner.link_ended()
        else:
            internals.abort(self._connecting)


def _cause(error: Any) -> Any:
    """Return what went wrong in pika's connection workflow, which keeps a list of it."""
    attempts = getattr(error, "exceptions", None)
    cause = attempts[-1] if attempts else error
    return getattr(cause, "exception", cause)
