"""`shield setup --broker rabbitmq`: exchanges, queues and bindings for what overflows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from pika.exceptions import AMQPError, ChannelClosedByBroker

from shield import UnavailableError
from shield.setup import Destination, Setup, State, Thing
from shield_rabbitmq.declaring import EVERY_KEY, EXCHANGE_TYPE, parts_of
from shield_rabbitmq.place import Place

NOT_FOUND = 404
Declare = Callable[[Any], object]
"""Asks a channel for something; the broker closes it where it says no."""


class RabbitMQSetup(Setup):
    """Declares with plain pika, each thing on a channel of its own: a refusal closes it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.title = f"RabbitMQ at {place}"

    def __enter__(self) -> Self:
        """Connect."""
        self._connection = self._place.connect()
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect."""
        if self._connection.is_open:
            self._connection.close()

    def look(self, destination: Destination) -> Iterator[Thing]:
        """Ask for exchange and queue; a binding cannot be asked for."""
        exchange, queue = parts_of(destination.name)
        if exchange:
            yield self._look("exchange", exchange)
        yield self._look("queue", queue)

    def make(self, destination: Destination) -> Iterator[Thing]:
        """Declare exchange and queue, then bind; what is refused ends it."""
        exchange, queue = parts_of(destination.name)
        if exchange:
            made = self._make(
                "exchange",
                exchange,
                lambda channel: channel.exchange_declare(exchange, EXCHANGE_TYPE, durable=True),
                f"{EXCHANGE_TYPE}, durable",
            )
            yield made
            if made.state is State.REFUSED:
                return
        made = self._make(
            "queue", queue, lambda channel: channel.queue_declare(queue, durable=True), "durable"
        )
        yield made
        if exchange and made.state is not State.REFUSED:
            self._ask(lambda channel: channel.queue_bind(queue, exchange, EVERY_KEY))
            yield Thing("binding", queue, made.state, "for every routing key")

    def _look(self, what: str, name: str) -> Thing:
        refusal = self._ask(_passive(what, name))
        if refusal is None:
            return Thing(what, name, State.THERE)
        if refusal.reply_code == NOT_FOUND:
            return Thing(what, name, State.MISSING)
        return Thing(what, name, State.REFUSED, refusal.reply_text)

    def _make(self, what: str, name: str, declare: Declare, how: str) -> Thing:
        before = self._look(what, name)
        if before.state is State.REFUSED:
            return before
        refusal = self._ask(declare)  # also where it is there: the broker compares
        if refusal is not None:
            return Thing(what, name, State.REFUSED, refusal.reply_text)
        return before if before.state is State.THERE else Thing(what, name, State.MADE, how)

    def _ask(self, declare: Declare) -> ChannelClosedByBroker | None:
        """Return None where the broker says yes, else what it said."""
        try:
            channel = self._connection.channel()
            declare(channel)
            channel.close()
        except ChannelClosedByBroker as refusal:
            return refusal
        except AMQPError as error:
            raise UnavailableError(f"{self.title} was lost: {error}") from error
        return None


def _passive(what: str, name: str) -> Declare:
    if what == "exchange":
        return lambda channel: channel.exchange_declare(name, passive=True)
    return lambda channel: channel.queue_declare(name, passive=True)
