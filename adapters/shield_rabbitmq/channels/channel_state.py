"""What a shielded channel has beside pika's own: who decides, and what is not confirmed yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import BasicProperties
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosed,
    ChannelClosedByBroker,
    ConnectionWrongStateError,
    NackError,
    UnroutableError,
)
from pika.spec import Basic

from shield import Message, Outcome, Permit, Shield, Signals
from shield.engine.reporting.signal_support import Unfit, refuse_unfit
from shield_rabbitmq.channels.blocked_listener import BlockedListener
from shield_rabbitmq.channels.signal_support import ChannelSignals, listens
from shield_rabbitmq.client import internals
from shield_rabbitmq.client.errors import RefusedError
from shield_rabbitmq.client.expiration import deadline_of
from shield_rabbitmq.connection.confirms import UnconfirmedWindow

Publish = Callable[..., None]
OTHERS = object()
"""Stands in the window for a publish that was not decided on."""


class ChannelState:
    """Decides on what one channel publishes, and settles it; for good, or during some calls.

    A message counts as delivered when pika has taken it, unless the channel's confirms are known
    from the first one on: then when the broker has acked it.
    """

    __slots__ = (
        "_bring_back",
        "_calls",
        "acts",
        "admit",
        "channel_signals",
        "consumer",
        "consumes",
        "counts",
        "for_good",
        "instrumented",
        "listener",
        "listens",
        "plain",
        "producer",
        "shield",
        "signals",
        "unfit",
        "window",
    )

    shield: Shield

    def __init__(
        self,
        instrumented: Publish | None,
        counts: bool,
        listener: BlockedListener,
        channel_signals: ChannelSignals,
        bring_back: Callable[[Shield, str], None],
    ) -> None:
        self.instrumented = instrumented
        """What stood in the place of the channel's own `basic_publish` when it was shielded."""
        self.consumes: Callable[..., Any] | None = None
        """What stood in that of its `basic_consume`."""
        self.counts = counts
        """Whether confirms that are turned on now can be counted from the first one on."""
        self.listener = listener
        self.channel_signals = channel_signals
        self._bring_back = bring_back
        self.signals: Signals | None = None
        """What the broker tells this channel; None before a Shield decides."""
        self.unfit: tuple[Unfit, ...] = ()
        """What is in the rules and cannot be kept to here."""
        self.listens = False
        """Whether a rule wants to know of a blocked connection."""
        self.window: UnconfirmedWindow[tuple[object, float | None]] | None = None
        """What is not confirmed, and since when; None where confirms are off, or not counted."""
        self.consumer: str | None = None
        """Who receives, where that is not who publishes."""
        self.acts = self.for_good = self.plain = False
        self._calls = 0

    def act(self, shield: Shield, producer: str | None, consumer: str | None = None) -> None:
        """Act from now on, by that Shield."""
        self.under(shield, producer)
        self.consumer = consumer
        self.for_good = True
        self._note()

    def under(self, shield: Shield, producer: str | None) -> None:
        """Decide by that Shield from now on."""
        self.producer = producer or shield.settings.producer
        if self.signals is not None and self.shield is shield:
            return
        self.shield = shield
        self.admit = shield.admit
        self.signals = Signals(shield.clock.now, shield.engine.signals_changed)
        self.listener.tell(self.signals)
        self.listens = listens(shield)
        self.unfit = self.channel_signals.unfit(shield)
        self._bring_back(shield, self.producer)

    @property
    def terms(self) -> tuple[Shield, str]:
        """Whose rules are asked about deliveries, and who receives them."""
        return self.shield, self.consumer or self.producer

    def begin(self, shield: Shield, producer: str | None, consumer: str | None = None) -> None:
        """Act during one more call; a Shield that it is under already stays."""
        if not self.acts:
            self.under(shield, producer)
            self.consumer = consumer
        self._calls += 1
        self._note()

    def end(self) -> None:
        """Note the end of a call."""
        self._calls -= 1
        self._note()

    def _note(self) -> None:
        self.acts = self.for_good or self._calls > 0
        confirms = self.channel_signals.confirms
        self.plain = self.acts and self.instrumented is None and not confirms
        if self.plain and self.shield.engine.prepares:
            self.plain = False

    def refuse_unfit(self, destination: str) -> None:
        """Raise where a rule that covers the destination cannot be kept to here.

        Raises:
            SettingsError: it says which, and what to do.
        """
        refuse_unfit(self.unfit, destination, self.producer, self.channel_signals.error)

    def message(
        self, exchange: Any, routing_key: Any, body: Any, properties: Any
    ) -> Message | None:
        """Return a publish as rules see it; None where it is nothing that pika sends."""
        try:
            exchange, routing_key = text_of(exchange), text_of(routing_key)
            size = len(_encoded(body))
        except (TypeError, ValueError):
            return None  # pika knows best what is wrong
        destination = f"{exchange}/{routing_key}" if exchange else routing_key
        headers = None if properties is None else headers_of(properties)
        message = Message(
            destination, size, self.producer, None, headers, routing_key, self.signals
        )
        message.deadline = deadline_of(properties, self.shield.clock.now())
        return message

    def send(
        self, channel: Any, permit: Permit, publish: Publish, *args: Any, **named: Any
    ) -> None:
        """Publish what is admitted, and settle its permit when the confirm comes."""
        try:
            publish(*args, **named)
        except BaseException as error:
            self._answered(error)
            settle_failed(permit, error)
            raise
        if self.window is None:
            self._answered()
            permit.delivered()
        else:
            self.published(channel, permit)

    # --- confirms -----------------------------------------------------------------------------

    def count(self) -> None:
        """Count delivery tags from now on: confirms were asked for."""
        if self.counts and self.window is None:
            self.window = UnconfirmedWindow()
            self.confirming()

    def confirming(self) -> None:
        """Note that confirms tell from now on how messages ended."""
        self.channel_signals.confirms = True
        if self.signals is not None:
            self.unfit = self.channel_signals.unfit(self.shield)
        self._note()

    def published(self, channel: Any, item: object) -> None:
        """Give the next delivery tag to what was published, if the broker counts it."""
        if self.window is None:
            return
        if not len(self.window) and internals.confirms_wait(channel):
            if isinstance(item, Permit):
                item.delivered()
        else:
            self.window.add((item, None if self.signals is None else self.signals.now()))
            self._window_changed()

    def confirmed(self, method: Any) -> None:
        """Settle what an ack or a nack is about."""
        if self.window is None:
            return
        confirmed = self.window.confirm(method.delivery_tag, method.multiple)
        acked = isinstance(method, Basic.Ack)
        if confirmed:
            self._tell(len(confirmed), confirmed[-1][1], acked)
        for item, _since in confirmed:
            if isinstance(item, Permit):
                if acked:
                    item.delivered()
                else:
                    item.settle(Outcome.OVERLOADED)

    def closed(self, _channel: Any, reason: Exception) -> None:
        """Settle what was not confirmed when the channel went: nobody knows what became of it.

        As with a `Publisher` that is taken for overload; but not where the broker has closed the
        channel, which it does for errors, and never for load.
        """
        if self.window is None:
            return
        by_broker = isinstance(reason, ChannelClosedByBroker)
        for item, _since in self.window.clear():
            if isinstance(item, Permit):
                item.settle(Outcome.FAILED if by_broker else Outcome.OVERLOADED)
        self._window_changed()

    def _answered(self, error: BaseException | None = None) -> None:
        """Count the answer to one message of a channel that waits for each."""
        confirms = self.channel_signals.confirms and self.window is None
        if not confirms or not (error is None or isinstance(error, NackError | UnroutableError)):
            return
        nacks, returns = isinstance(error, NackError), isinstance(error, UnroutableError)
        if self.signals is not None:
            self.signals.answers.count(self.signals.now(), 1, nacks, returns)

    def _tell(self, messages: int, since: float | None, acked: bool) -> None:
        """Note what the broker has answered, and how long the last of it took."""
        if self.signals is None:
            return
        now = self.signals.now()
        self.signals.answers.count(now, messages, 0 if acked else messages)
        if since is not None:
            self.signals.latency.add(now, now - since)
        self._window_changed()

    def _window_changed(self) -> None:
        if self.signals is not None and self.window is not None:
            self.signals.in_flight = len(self.window)
            self.signals.changed()


def settle_failed(permit: Permit, error: BaseException) -> None:
    """Settle a publish that raised; what was never written gives back what it was charged."""
    if isinstance(error, NackError):
        permit.settle(Outcome.OVERLOADED)
    elif isinstance(error, RefusedError):
        permit.cancel()
    elif isinstance(error, UnroutableError | ChannelClosed):
        permit.settle(Outcome.FAILED)
    elif isinstance(error, AMQPConnectionError) and not isinstance(
        error, ConnectionWrongStateError
    ):
        permit.settle(Outcome.OVERLOADED)
    elif isinstance(error, Exception):
        permit.cancel()
    else:
        permit.settle(Outcome.FAILED)  # interrupted: it may be on the wire


def _encoded(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytearray | memoryview):
        return bytes(body)  # pika sends them, too
    raise TypeError("neither bytes nor text")


def text_of(name: Any) -> str:
    """Return the name of an exchange, or a routing key, as text; pika takes bytes, too."""
    if isinstance(name, str):
        return name
    if isinstance(name, bytes):
        return name.decode()
    raise TypeError("neither bytes nor text")


def headers_of(properties: BasicProperties) -> Any:
    """Return the headers, or None where pika will find that they are none."""
    headers = getattr(properties, "headers", None)
    return headers if isinstance(headers, dict) else None
