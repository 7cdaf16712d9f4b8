"""A message that a consumer was given, on its way to an overflow destination."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from shield import Envelope, Shield, ShieldError
from shield.action import Divert
from shield.chain.deferred import DeferredDelivery
from shield.clients.diversion import send_through
from shield.headers import BROKER, ROUTING_KEY, diverted, signed
from shield.transport import Done, once
from shield_rabbitmq.client import internals
from shield_rabbitmq.client.address import origin_of
from shield_rabbitmq.client.envelopes import envelope_of
from shield_rabbitmq.client.errors import CannotConnectError
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.client.properties import kept, now_ms, received, set_aside
from shield_rabbitmq.client.raw_properties import Encoded
from shield_rabbitmq.connection.pending_publish import OverflowPublish
from shield_rabbitmq.publishing.relay_pool import relay_for

if TYPE_CHECKING:
    from shield_rabbitmq.consuming.delivery import BrokerDelivery


def send_diverted(
    connection: Any,
    shield: Shield,
    held: DeferredDelivery,
    broker_delivery: BrokerDelivery,
    step: Divert,
    ended: Done,
) -> None:
    """Send a message where the step says; `ended` is called once, from any thread.

    Confirmed and mandatory: on the same broker through a publisher on a connection of its own,
    which all connections to that broker share. It is not to go where it comes from.
    """
    if step.transport is not None:
        whole = partial(_envelope, connection, held, broker_delivery)
        send_through(step.transport, step.transport, held.over, whole, ended)
        return
    finish = once(ended)  # who answers may also raise
    try:
        _relay(connection, shield, held, broker_delivery, step, finish)
    except Exception as error:
        finish(error)


def _envelope(connection: Any, held: DeferredDelivery, broker_delivery: BrokerDelivery) -> Envelope:
    """Return the whole message, with the headers that say why it is diverted, and from where."""
    over = held.over
    marks = _marks(held) | {BROKER: origin_of(internals.parameters_of(connection))}
    frames = Frames("", over.message.destination, broker_delivery.body, None, mandatory=True)
    whole = envelope_of(frames, _copy(connection, broker_delivery), over.message.producer)
    return whole.diverted(marks, over.engine.signer)


def _relay(
    connection: Any,
    shield: Shield,
    held: DeferredDelivery,
    broker_delivery: BrokerDelivery,
    step: Divert,
    ended: Done,
) -> None:
    message = held.over.message
    exchange, _, routing_key = step.destination.partition("/")
    routing_key = routing_key or broker_delivery.method.routing_key
    if not exchange and routing_key == message.destination:
        raise ShieldError(f"{step.destination}: it was taken out of that queue")
    relay = relay_for(connection, shield, message.producer)
    if relay.blocked:
        raise CannotConnectError("RabbitMQ takes no messages for now")
    missing = relay.sender.writer.missing(exchange)
    if missing is not None:
        raise missing
    marks = signed(_marks(held), broker_delivery.body, held.over.engine.signer)
    properties = set_aside(_copy(connection, broker_delivery), marks)
    frames = Frames(exchange, routing_key, broker_delivery.body, properties, mandatory=True)
    relay.sender.writer.put(OverflowPublish(frames, step.declare, ended))


def _marks(held: DeferredDelivery) -> dict[str, str]:
    """Return the headers of a diverted message: it goes back to its queue, and to no other."""
    return {**diverted(held.over), ROUTING_KEY: held.over.message.destination}


def _copy(connection: Any, broker_delivery: BrokerDelivery) -> Encoded:
    """Return the properties of a copy that goes back to its queue alone."""
    method, own = broker_delivery.method, Encoded.of(broker_delivery.properties)
    user = getattr(internals.parameters_of(connection).credentials, "username", None)
    sent_ms = now_ms() if own.timestamp is None else own.timestamp * 1000
    copy = received(own, method.exchange, method.routing_key, user)
    return kept(copy, mandatory=True, sent_ms=sent_ms)
