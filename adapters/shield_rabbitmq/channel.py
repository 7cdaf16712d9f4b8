"""pika's channels, shielded: the object that its user holds is the channel itself.

A channel becomes shielded by a change of its class, to a subclass. So there is no second object
beneath it: whatever pika hands to a callback is what the user holds, and all that a channel can do
it still can.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel

from shield import End, OverLimit, Permit
from shield.sync import react
from shield_rabbitmq import internals
from shield_rabbitmq.channel_outlet import ChannelOutlet
from shield_rabbitmq.guard import OTHERS, Guard


class Shielded:
    """`basic_publish` within quotas, for both kinds of channel."""

    _shield_guard: Guard
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
        """
        guard = self._shield_guard
        publish = guard.instrumented or super().basic_publish  # type: ignore[misc]
        call = (publish, exchange, routing_key, body, properties, mandatory, *more)
        message = guard.message(exchange, routing_key, body, properties) if guard.acts else None
        if message is None:
            publish(*call[1:], **named)
            guard.published(self, OTHERS)
            return
        verdict = guard.admit(message)
        if type(verdict) is Permit:
            self.shield_fate = "sent"
            guard.send(self, verdict, *call, **named)
            return
        assert isinstance(verdict, OverLimit)
        if not self.is_open:  # type: ignore[attr-defined]
            verdict.end(End.FAILED)
            publish(*call[1:], **named)  # pika raises
            return
        self.shield_fate = "raised"
        outlet = ChannelOutlet(
            self, lambda permit: guard.send(self, permit, *call, **named), *call[1:5]
        )
        self.shield_fate = outlet.ended(react(verdict, outlet))


class ShieldedBlockingChannel(Shielded, BlockingChannel):  # type: ignore[misc] # pika is untyped
    """A BlockingChannel whose publishes are within quotas."""

    _shield_waits = True


class ShieldedChannel(Shielded, Channel):  # type: ignore[misc]
    """A Channel, as SelectConnection has it, whose publishes are within quotas."""

    def confirm_delivery(self, ack_nack_callback: Any, *more: Any, **named: Any) -> None:
        """Turn confirms on as pika's channel does; each is counted, then handed to the callback."""
        guard = self._shield_guard
        if guard.counts and callable(ack_nack_callback):
            ack_nack_callback = partial(_confirmed, guard, ack_nack_callback)
        super().confirm_delivery(ack_nack_callback, *more, **named)
        guard.confirms_asked_for()


def _confirmed(guard: Guard, callback: Any, frame: Any) -> None:
    guard.confirmed(frame.method)
    callback(frame)


def is_channel(value: object) -> bool:
    """Tell whether it is a channel of pika's, shielded or not, and no stand-in for one."""
    return issubclass(type(value), BlockingChannel | Channel)


def guard_of(channel: Any) -> Guard:
    """Return a channel's guard; one that has none becomes shielded, by a guard that does not act.

    What an instrumentation has put into the channel itself stays below the Shield.
    """
    if not isinstance(channel, Shielded):
        counts = isinstance(channel, Channel) and not internals.confirms_are_on(channel)
        guard = Guard(vars(channel).pop("basic_publish", None), counts)
        channel._shield_guard = guard
        channel.__class__ = _shielded_class(type(channel))
        if counts:
            channel.add_on_close_callback(guard.closed)
    return channel._shield_guard  # type: ignore[no-any-return]


@cache
def _shielded_class(kind: Any) -> Any:
    ours = ShieldedBlockingChannel if issubclass(kind, BlockingChannel) else ShieldedChannel
    return ours if kind in ours.__bases__ else type(f"Shielded{kind.__name__}", (ours, kind), {})
