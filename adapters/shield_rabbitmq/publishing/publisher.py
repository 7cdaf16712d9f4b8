"""A publisher that any number of threads share; each message is confirmed by the broker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import pika
from pika import BasicProperties
from pika.exceptions import AMQPError

import shield as core
from shield import (
    URL,
    Backlogs,
    Message,
    OverLimit,
    Permit,
    SettingsError,
    Shield,
    Signals,
    Transport,
)
from shield.capabilities import LimitsSojourn
from shield.chain.runner import taken_back
from shield.engine.reporting.signal_support import SignalSupport
from shield.errors import rejecting_as
from shield.message import added_headers
from shield_rabbitmq.channels.signal_support import PUBLISHER
from shield_rabbitmq.client.errors import (
    ForkedPublisherError,
    PublisherClosedError,
)
from shield_rabbitmq.client.expiration import deadline_of
from shield_rabbitmq.client.frames import (
    Frames,
    body_of,
    check_address,
    check_properties,
    with_headers,
)
from shield_rabbitmq.connection.pending_publish import Confirm
from shield_rabbitmq.connection.send_queue import SendQueue
from shield_rabbitmq.connection.write_thread import WriteThread
from shield_rabbitmq.operations.depth import DepthReader
from shield_rabbitmq.publishing.port import PublisherPort
from shield_rabbitmq.publishing.publisher_limit import PublisherLimit
from shield_rabbitmq.publishing.sender import MessageSender, opened
from shield_rabbitmq.publishing.transport import PublisherTransport


class Publisher:
    """Publishes to RabbitMQ within quotas; thread-safe, and every message is confirmed.

    Callers on any thread hand messages over; one write thread owns the connection, keeps up to
    `window` messages on the wire and completes each message's future when the broker has
    answered for it. The connection is made with the first message and made again, with
    full-jitter backoff, when it is lost. A publisher that is dropped without `close`, or whose
    program ends, still has its messages confirmed: a program waits ten seconds for that.

    What may be unanswered at once is bounded by an `in_flight` or `client_queue` policy of the
    rules, whose chain says what happens beyond; for what no such rule covers, `publish` blocks at
    `max_messages` or `max_bytes`.

    Args:
        url: where the broker is, as `amqp://user:password@host:port/vhost`, or pika's parameters.
        shield: a `shield.Shield`, the path of a settings file, a dict of settings, or None for
            the one that this process shares (`shield.default()`).
        shield_producer: who this publisher is to quotas and ledger; the settings' `producer` if
            not given.
        window: how many messages may be on the wire and not confirmed.
        resend_unconfirmed: when the connection is lost, send what was not confirmed again, so
            that some messages arrive twice, instead of failing it with
            `RabbitMQDeliveryUnknownError`.
        max_messages: how many messages may be unanswered where no rule bounds them.
        max_bytes: how many bytes of them.

    Raises:
        SettingsError: an argument that cannot be used; it says which and what is allowed.
    """

    shield: Shield
    """The Shield that decides; `publisher.shield.ledger()` accounts for every message."""
    sender: MessageSender
    """What hands messages to the write thread; for what sends beside the quotas."""

    def __init__(
        self,
        url: str | pika.connection.Parameters,
        *,
        shield: Shield | str | Path | Mapping[str, Any] | None = None,
        shield_producer: str | None = None,
        window: int = 1000,
        resend_unconfirmed: bool = False,
        max_messages: int = 10_000,
        max_bytes: int = 64 * 2**20,
    ) -> None:
        for name, value in (
            ("window", window),
            ("max_messages", max_messages),
            ("max_bytes", max_bytes),
        ):
            if type(value) is not int or value < 1:
                raise SettingsError(f"{name}: found {value!r}; allowed is an int of 1 or more")
        parameters = parameters_of(url)
        self.shield = core.shield_of(shield)
        self._producer = shield_producer or self.shield.settings.producer
        self._signals = Signals(self.shield.clock.now, self.shield.engine.signals_changed)
        self._support = SignalSupport(
            self.shield.rules, self._producer, PUBLISHER, "shield_rabbitmq.Publisher"
        )
        policies = [policy for rule in self.shield.rules for policy in rule.policies]
        bounds_delay = any(isinstance(policy, LimitsSojourn) for policy in policies)
        self._send_queue = SendQueue(self._signals) if bounds_delay else None
        self._writer = WriteThread(
            parameters, window, resend_unconfirmed, self._signals, waiting=self._send_queue
        )
        limit = PublisherLimit(max_messages, max_bytes)
        self.sender = MessageSender(self._writer, limit, self._producer)
        opened(self.sender)
        self._transport = PublisherTransport(self.sender, parameters, self._signals)
        self._signals.backlogs = Backlogs(
            self._transport.origin,
            partial(DepthReader, parameters),
            self.shield.clock,
            self.shield.engine.backlog_changed,
        )
        self.shield.engine.opened(self._transport)

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: BasicProperties | None = None,
        mandatory: bool = True,
    ) -> Confirm:
        """Publish a message; the future completes with None when the broker has confirmed it.

        It fails with `NackedError` (also pika's `NackError`) where a queue refused,
        `ReturnedError` (`UnroutableError`) where no queue takes it, `ExchangeError`
        (`ChannelClosedByBroker`) where the exchange is missing, `RabbitMQDeliveryUnknownError`
        where the connection was lost before the broker had answered, and `CannotConnectError` where
        there was none; with `OverLimitError` where a `queue_delay` shed what waited too long, and
        its chain raises. A message that was dropped has a future that is done;
        `shield.fate(future)` tells which way a message went. `str` is sent as UTF-8.

        Raises:
            OverLimitError: over the limit, and the chain says `raise`; also an AMQPError.
            Reject: a plugin has refused it; also an AMQPError.
            TypeError, ValueError: an argument that cannot be sent; no quota was charged. What
                RabbitMQ is known to refuse is a `RefusedError`, also a ChannelClosedByBroker;
                what only the broker knows fails the future with it.
            PublisherClosedError: after `close`.
            SettingsError: a rule that covers it goes by what a publisher never tells.
            ForkedPublisherError: in a process forked after the publisher was in use.
        """
        if self.sender.refuses is not None:
            raise self.sender.refusal()
        check_address(exchange, routing_key)
        check_properties(properties)
        frames = Frames(exchange, routing_key, body_of(body), properties, mandatory)
        if self._support.unfit:
            self._support.check(frames.destination)
        headers = None if properties is None else properties.headers
        message = Message(
            frames.destination,
            len(frames.body),
            self._producer,
            None,
            headers,
            routing_key,
            self._signals,
        )
        if properties is not None and properties.expiration is not None:
            message.deadline = deadline_of(properties, self.shield.clock.now())
        if self.shield.engine.prepares:
            with rejecting_as(AMQPError):
                verdict = self.shield.admit(message)
            with taken_back(verdict):
                properties = with_headers(properties, added_headers(message))
                frames = Frames(exchange, routing_key, frames.body, properties, mandatory)
        else:
            verdict = self.shield.admit(message)
        if type(verdict) is Permit:
            if verdict.flow.waits:
                return PublisherPort(self.sender, self._transport, frames).send(verdict)
            return self.sender.send(verdict, frames, Confirm())
        assert isinstance(verdict, OverLimit)
        port = PublisherPort(self.sender, self._transport, frames)
        return self.sender.run_chain(verdict, port)

    @property
    def transport(self) -> Transport:
        """The way back through this publisher, for what is kept of its messages."""
        return self._transport

    @property
    def signals(self) -> Signals:
        """What the broker tells this publisher: blocked, window, queue, nacks, returns, latency."""
        return self._signals

    @property
    def blocked(self) -> bool:
        """Whether the broker has said that it takes no messages for now (an alarm)."""
        return self._writer.blocked

    @property
    def unconfirmed(self) -> int:
        """How many messages are on the wire and not confirmed; `window` at the most."""
        return self._writer.unconfirmed

    @property
    def on_write_thread(self) -> bool:
        """Whether the caller is the write thread, as in a future's callback: it must not wait."""
        return self._writer.is_current

    @property
    def closed(self) -> bool:
        """Whether nothing can be published any more: after `close`, or in a forked process."""
        return self.sender.refuses is not None

    def flush(self, timeout: float | None = None) -> None:
        """Return when what is buffered is sent and all is confirmed or has failed.

        At the latest after `timeout` seconds, None for as long as it takes; in a future's
        callback, on the write thread, at once.
        """
        if self.sender.refuses is not None:
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        for _ in range(1 if self._send_queue is None else 2):  # what was shed meanwhile is buffered
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            self.shield.engine.flush(self._transport, left_s)
            self._writer.flush(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def close(self, timeout: float | None = 30.0) -> None:
        """Wait until all messages are confirmed, `timeout` seconds at the most; end the thread.

        What is left then has its future failed and is counted; None waits as long as it takes.
        May be called again, from any thread, and from a future's callback, where it does not
        wait. In a forked process it does nothing.
        """
        if self.sender.refuses is ForkedPublisherError:
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.sender.refuses is None:
            self.shield.engine.closing(self._transport, timeout)
        self.sender.refuses = PublisherClosedError
        self.sender.limit.close()
        self._writer.close(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self._signals.backlogs is not None:
            self._signals.backlogs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def through(self, sender: MessageSender) -> Publisher:
        """Return this publisher for one call, whose message goes through another sender of its."""
        other = Publisher.__new__(Publisher)
        other.__dict__.update(self.__dict__)
        other.sender = sender
        return other


def parameters_of(url: Any) -> pika.connection.Parameters:
    """Return pika's parameters; SettingsError where the URL is none.

    Raises:
        SettingsError: it says what was found, without a password, and what is allowed.
    """
    if isinstance(url, pika.connection.Parameters):
        return url
    if not isinstance(url, str):
        raise SettingsError(f"url: found {url!r}; allowed is a text or pika's parameters")
    scheme, _, rest = url.partition("://")
    allowed = "allowed is amqp://user:password@host:port/vhost, or amqps://"
    shown = f"{scheme}://{rest.rpartition('@')[2]}" if rest else url
    if scheme not in ("amqp", "amqps"):
        raise SettingsError(f"url: found {shown!r}; {allowed}")
    try:
        return pika.URLParameters(url)
    except Exception as error:
        why = _why(url, error)
        raise SettingsError(f"url: found {shown!r}, which is wrong ({why}); {allowed}") from None


def _why(url: str, error: Exception) -> str:
    """Return what is wrong with a URL; pika says what it took for a port: a piece of a password."""
    try:
        URL.parse(url)
    except ValueError as unreadable:
        return str(unreadable)
    return str(error)
