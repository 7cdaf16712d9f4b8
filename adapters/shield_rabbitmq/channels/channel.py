"""pika's channels, shielded: the object that its user holds is the channel itself.

A channel becomes shielded by a change of its class, to a subclass. So there is no second object
beneath it: whatever pika hands to a callback is what the user holds, and all that a channel can do
it still can.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from math import inf
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.exceptions import AMQPError

from shield import End, Message, OverLimit, Permit, Signals, Verdict
from shield.chain.blocking import attending
from shield.chain.runner import hold_back, run_chain, taken_back
from shield.engine.reporting.signal_support import required_signals
from shield.errors import rejecting_as
from shield.message import added_headers
from shield_rabbitmq.channels.blocked_listener import listener_of
from shield_rabbitmq.channels.channel_state import (
    OTHERS,
    ChannelState,
    Publish,
    headers_of,
    settle_failed,
)
from shield_rabbitmq.channels.port import ChannelPort
from shield_rabbitmq.channels.signal_support import BLOCKING, LOOP, ChannelSignals
from shield_rabbitmq.client import internals
from shield_rabbitmq.client.expiration import deadline_of
from shield_rabbitmq.client.frames import with_headers
from shield_rabbitmq.client.refusals import refuse_known
from shield_rabbitmq.consuming.channel import BlockingConsuming, ConsumingChannel
from shield_rabbitmq.publishing.relay_pool import bring_back

SERVE_EVERY_S = 0.25
"""How often a blocking channel reads and writes while its caller is kept waiting: half of what the
shortest heartbeat needs."""
LISTEN_EVERY_S = 0.02
"""How often a blocking channel reads before it publishes, where a rule wants to know."""


class Shielded:
    """`basic_publish` within quotas, for both kinds of channel."""

    _shield_state: ChannelState
    _shield_waits = False
    """Whether its caller may be blocked."""
    shield_fate = "sent"
    """What became of the message published last, for `shield.fate(channel)`."""

    def basic_publish(
        self,
        exchange: Any,
        routing_key: Any,
        body: Any,
        properties: Any = None,
        mandatory: bool = False,
        *more: Any,
        **named: Any,
    ) -> None:
        """Publish as pika's channel does, within the quotas of the rules.

        Raises:
            OverLimitError: over the limit, and the chain says `raise`; also an AMQPError.
            RefusedError: RabbitMQ would close the channel for it; also a ChannelClosedByBroker.
        """
        state = self._shield_state
        plain = type(body) is bytes and type(exchange) is type(routing_key) is str
        if not (plain and state.plain) or more or named:
            call = (exchange, routing_key, body, properties, mandatory, *more)
            self._shield_publish_with_care(call, named)
            return
        destination = f"{exchange}/{routing_key}" if exchange else routing_key
        if state.unfit:
            state.refuse_unfit(destination)
        if state.listens:
            self._shield_listen()
        headers = None if properties is None else headers_of(properties)
        message = Message(
            destination, len(body), state.producer, None, headers, routing_key, state.signals
        )
        if properties is not None:
            refuse_known(destination, properties)
            message.deadline = deadline_of(properties, state.shield.clock.now())
        verdict = state.admit(message)
        if type(verdict) is not Permit:
            call = (exchange, routing_key, body, properties, mandatory)
            self._shield_react(verdict, super().basic_publish, call, named)  # type: ignore[misc]
            return
        self.shield_fate = "sent"
        if verdict.flow.delays:
            self._shield_hold_back(verdict)
        try:
            super().basic_publish(exchange, routing_key, body, properties, mandatory)  # type: ignore[misc]
        except BaseException as error:
            settle_failed(verdict, error)
            raise
        verdict.delivered()

    def _shield_send(
        self, permit: Permit, publish: Publish, call: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        """Publish what is admitted; its permit is settled when the confirm comes."""
        if permit.flow.delays:
            self._shield_hold_back(permit)
        self._shield_state.send(self, permit, publish, *call, **named)

    def _shield_hold_back(self, permit: Permit) -> None:
        """Wait as long as policies ask for; the connection is served meanwhile."""
        with self._shield_attended():
            hold_back(permit, self._shield_may_wait)

    def _shield_may_wait(self) -> bool:
        return self._shield_waits

    @property
    def shield_signals(self) -> Signals | None:
        """What the broker tells this channel; None before a Shield has decided for it."""
        return self._shield_state.signals

    def _shield_listen(self) -> None:
        """Hear what the broker has said meanwhile; an event loop has heard it already."""

    def _shield_attended(self) -> AbstractContextManager[None]:
        """Let this thread serve the connection while it waits; an event loop never does."""
        return nullcontext()

    def _shield_publish_with_care(self, call: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Publish what needs a second look, or through a channel that does."""
        state = self._shield_state
        publish = state.instrumented or super().basic_publish  # type: ignore[misc]
        message = state.message(*call[:4]) if state.acts else None
        if message is None:
            publish(*call, **named)
            state.published(self, OTHERS)
            return
        refuse_known(message.destination, call[3])
        state.refuse_unfit(message.destination)
        if state.listens:
            self._shield_listen()
        with rejecting_as(AMQPError):
            verdict = state.admit(message)
        added = added_headers(message)
        if added:
            with taken_back(verdict):
                call = (*call[:3], with_headers(call[3], added), *call[4:])
                refuse_known(message.destination, call[3])
        if type(verdict) is Permit:
            self.shield_fate = "sent"
            self._shield_send(verdict, publish, call, named)
        else:
            self._shield_react(verdict, publish, call, named)

    def _shield_react(
        self, verdict: Verdict, publish: Publish, call: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        """Run the chain of the rule that refused."""
        assert isinstance(verdict, OverLimit)
        state = self._shield_state
        if not (self.is_open and internals.can_be_sent(*call[:4])):  # type: ignore[attr-defined]
            verdict.end(End.FAILED)
            publish(*call, **named)  # pika raises
            return
        self.shield_fate = "raised"
        port = ChannelPort(
            self,
            state.shield,
            state.producer,
            lambda permit: self._shield_send(permit, publish, call, named),
            call,
            blocking=self._shield_waits,
            deaf=bool(required_signals(verdict.refusal.policy)) and verdict.retry_after_s is None,
        )
        with self._shield_attended():
            self.shield_fate = port.ended(run_chain(verdict, port))


class ShieldedBlockingChannel(Shielded, BlockingConsuming, BlockingChannel):  # type: ignore[misc] # pika is untyped
    """A BlockingChannel whose publishes are within quotas, and what it receives."""

    _shield_waits = True
    _shield_listened_at = -inf

    def confirm_delivery(self, *more: Any, **named: Any) -> None:
        """Turn confirms on as pika's channel does: from now on it is known how messages end."""
        super().confirm_delivery(*more, **named)
        self._shield_state.confirming()

    def _shield_listen(self) -> None:
        """Read from time to time: pika does so only where its caller waits for an answer."""
        now = time.monotonic()
        if now - self._shield_listened_at >= LISTEN_EVERY_S and self.is_open:
            internals.serve(self)
            self._shield_listened_at = time.monotonic()

    def _shield_attended(self) -> AbstractContextManager[None]:
        return attending(self._shield_serve, SERVE_EVERY_S)

    def _shield_serve(self) -> None:
        """Answer heartbeats, and hear whether the broker takes messages."""
        now = time.monotonic()
        if now - self._shield_listened_at >= SERVE_EVERY_S:
            internals.serve(self)
            self._shield_listened_at = time.monotonic()


class ShieldedChannel(Shielded, ConsumingChannel, Channel):  # type: ignore[misc]
    """A Channel, as SelectConnection has it, whose publishes are within quotas, and what comes."""

    def confirm_delivery(self, ack_nack_callback: Any, *more: Any, **named: Any) -> None:
        """Turn confirms on as pika's channel does; each is counted, then handed to the callback."""
        state = self._shield_state
        if state.counts and callable(ack_nack_callback):
            ack_nack_callback = partial(_confirmed, state, ack_nack_callback)
        super().confirm_delivery(ack_nack_callback, *more, **named)
        state.count()


def _confirmed(state: ChannelState, callback: Any, frame: Any) -> None:
    state.confirmed(frame.method)
    callback(frame)


def is_channel(value: object) -> bool:
    """Tell whether it is a channel of pika's, shielded or not, and no stand-in for one."""
    return issubclass(type(value), BlockingChannel | Channel)


def is_shielded(channel: Any) -> bool:
    """Tell whether all that it publishes is within quotas, not only during some calls."""
    return isinstance(channel, Shielded) and channel._shield_state.for_good


def state_of(channel: Any) -> ChannelState:
    """Return a channel's state; one that has none becomes shielded, by a state that does not act.

    What an instrumentation has put into the channel itself stays below the Shield.
    """
    if not isinstance(channel, Shielded):
        confirms = internals.confirms_are_on(channel)
        counts = isinstance(channel, Channel) and not confirms
        channel_signals = _channel_signals(isinstance(channel, Channel), confirms)
        listener = listener_of(channel.connection)
        publish = vars(channel).pop("basic_publish", None)
        carried = partial(bring_back, channel.connection)
        state = ChannelState(publish, counts, listener, channel_signals, carried)
        state.consumes = vars(channel).pop("basic_consume", None)
        channel._shield_state = state
        kind: Any = type(channel)
        channel.__class__ = _shielded_class(kind)
        internals.write_in_one_piece(channel.connection)
        if counts:
            channel.add_on_close_callback(state.closed)
    return channel._shield_state  # type: ignore[no-any-return]


def _channel_signals(on_loop: bool, confirms: bool) -> ChannelSignals:
    turn_on = "call its confirm_delivery() before it publishes"
    if not on_loop:
        return ChannelSignals(BLOCKING, confirms, turn_on)
    if confirms:
        turn_on = "shield it before its confirms are turned on"
    return ChannelSignals(LOOP, False, turn_on)


@cache
def _shielded_class(kind: Any) -> Any:
    ours = ShieldedBlockingChannel if issubclass(kind, BlockingChannel) else ShieldedChannel
    return ours if kind in ours.__bases__ else type(f"Shielded{kind.__name__}", (ours, kind), {})
