"""`shield setup --broker rabbitmq`: exchanges, queues and bindings for what overflows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

from pika.exceptions import AMQPError, ChannelClosedByBroker

from shield import UnavailableError
from shield.provisioning import Destination, Provisioner, Resource, State
from shield.retention import Retention
from shield_rabbitmq.client.overflow_topology import EVERY_KEY, EXCHANGE_TYPE, parts_of
from shield_rabbitmq.client.queue_type import queue_type
from shield_rabbitmq.operations.broker_address import BrokerAddress
from shield_rabbitmq.operations.retention import TIME, retention_of

NOT_FOUND = 404
Declare = Callable[[Any], object]
"""Asks a channel for something; the broker closes it where it says no."""


class RabbitMQProvisioner(Provisioner):
    """Declares with plain pika, each thing on a channel of its own: a refusal closes it."""

    def __init__(self, place: BrokerAddress) -> None:
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

    def look(self, destination: Destination) -> Iterator[Resource]:
        """Ask for exchange and queue; a binding cannot be asked for."""
        exchange, queue = parts_of(destination.name)
        if exchange:
            yield self._look("exchange", exchange)
        yield self._kept(self._look("queue", queue))

    def make(self, destination: Destination) -> Iterator[Resource]:
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
        made = self._make_queue(queue)
        yield made
        if exchange and made.state is not State.REFUSED:
            self._ask(lambda channel: channel.queue_bind(queue, exchange, EVERY_KEY))
            yield Resource("binding", queue, made.state, "for every routing key")

    def _make_queue(self, queue: str) -> Resource:
        """Declare a queue, or leave that which is there, and say what it keeps."""
        before = self._look("queue", queue)
        there = before.state is State.THERE
        if there and self.retention_s is not None:
            return self._as_asked(self._kept(before))
        arguments = {} if self.retention_s is None else {TIME: int(self.retention_s * 1000)}
        if there:  # durable it must be; what it keeps, and its type, are its owner's choice
            arguments = queue_type(self._connection, queue).declared

        def declare(channel: Any) -> object:
            return channel.queue_declare(queue, durable=True, arguments=arguments)

        return self._kept(self._make("queue", queue, declare, "durable"))

    def _as_asked(self, there: Resource) -> Resource:
        """Refuse a queue that keeps messages for another time: its arguments cannot be changed."""
        assert self.retention_s is not None
        asked = str(Retention(for_s=self.retention_s))
        if there.keeps.split(", ")[0] == asked:
            return there
        name, ttl_ms = there.name, int(self.retention_s * 1000)
        how = (
            f"it is there and keeps {there.keeps or 'what the broker does not tell'}; a queue is "
            f"changed by a policy: rabbitmqctl set_policy --apply-to queues {name} "
            f"'^{re.escape(name)}$' '{{\"message-ttl\": {ttl_ms}}}'"
        )
        return replace(there, state=State.REFUSED, detail=how)

    def _kept(self, thing: Resource) -> Resource:
        """Add what a queue keeps, as its arguments say."""
        if thing.state not in (State.THERE, State.MADE):
            return thing
        kept = retention_of(queue_type(self._connection, thing.name))
        if kept is None:
            return thing
        return replace(thing, keeps=str(kept), warnings=tuple(kept.warnings(self.least_s)))

    def _look(self, what: str, name: str) -> Resource:
        refusal = self._ask(_passive(what, name))
        if refusal is None:
            return Resource(what, name, State.THERE)
        if refusal.reply_code == NOT_FOUND:
            return Resource(what, name, State.MISSING)
        return Resource(what, name, State.REFUSED, refusal.reply_text)

    def _make(self, what: str, name: str, declare: Declare, how: str) -> Resource:
        before = self._look(what, name)
        if before.state is State.REFUSED:
            return before
        refusal = self._ask(declare)  # also where it is there: the broker compares
        if refusal is not None:
            return Resource(what, name, State.REFUSED, refusal.reply_text)
        return before if before.state is State.THERE else Resource(what, name, State.MADE, how)

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
