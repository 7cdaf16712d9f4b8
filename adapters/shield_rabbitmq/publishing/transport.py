"""The way back through a publisher: what was set aside goes out as its user would have sent it."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from pika.connection import Parameters

from shield import Envelope, Outcome, ShieldError, Source, Transport
from shield.interrupts import is_from_outside
from shield.transport import Done
from shield_rabbitmq.client.address import RabbitMQAddress, origin_of
from shield_rabbitmq.client.envelopes import parcel_of
from shield_rabbitmq.client.errors import (
    ExchangeError,
    NackedError,
    RabbitMQDeliveryUnknownError,
    ReturnedError,
)
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.connection.pending_publish import PendingPublish

if TYPE_CHECKING:
    from shield_rabbitmq.publishing.publisher import Publisher


log = logging.getLogger("shield.rabbitmq")


class PublisherTransport(Transport):
    """Sends envelopes through a user's own publisher, past its quotas: they are admitted already.

    Does not keep the publisher alive; once that is gone or closed, every send fails.
    """

    scheme = "amqp"

    def __init__(self, publisher: Publisher, parameters: Parameters) -> None:
        self._publisher = weakref.ref(publisher)
        self.signals = publisher.signals
        self.origin = origin_of(parameters)
        self._parameters = parameters

    def send(self, envelope: Envelope, done: Done) -> None:
        """Publish to the envelope's exchange; confirmed, as all that it publishes."""
        publisher = self._publisher()
        if publisher is None:
            done(ShieldError("the publisher is gone"))
            return
        try:
            parcel = parcel_of(envelope)
        except Exception as error:
            done(error)
            return
        publisher._writer.put(Carried(parcel, done))

    def way_back(self, destination: str) -> Source:
        """Return what reads a queue of the publisher's broker: `/QUEUE`, or one named as that."""
        from shield_rabbitmq.remote.source import QueueSource

        return QueueSource(RabbitMQAddress(self._parameters, ()), destination.removeprefix("/"))

    @property
    def is_open(self) -> bool:
        """Whether the publisher is there and not closed."""
        publisher = self._publisher()
        return publisher is not None and publisher._refuses is None

    def may_wait(self) -> bool:
        """Anywhere but on the write thread."""
        publisher = self._publisher()
        return publisher is None or publisher._may_wait()

    def outcome_of(self, error: Exception) -> Outcome:
        """Tell overload from all other errors, as for the publisher's own messages."""
        return Outcome.OVERLOADED if overloaded(error) else Outcome.FAILED

    def is_hopeless(self, error: Exception) -> bool:
        """Tell what no queue takes, no exchange, or cannot be encoded, from all other errors."""
        return isinstance(error, ReturnedError | ExchangeError | TypeError | ValueError)

    def is_faulty(self, error: Exception) -> bool:
        """Tell what cannot be encoded, or the broker refuses for what it is."""
        return isinstance(error, TypeError | ValueError)

    def close(self, timeout_s: float) -> None:
        """Do nothing: the publisher is its user's."""


class Carried(PendingPublish):
    """An envelope on its way."""

    __slots__ = ("_done", "may_decline")

    def __init__(self, parcel: Frames, done: Done, *, may_decline: bool = False) -> None:
        super().__init__(parcel)
        self._done = done
        self.may_decline = may_decline

    def finish(self, error: Exception | None) -> None:
        """Tell who sent it; what that raises is not to end the connection of all others."""
        try:
            self._done(error)
        except Exception as failed:
            if is_from_outside(failed):
                raise
            log.exception("who sent to %s cannot take the answer", self.parcel.destination)


def overloaded(error: Exception) -> bool:
    """Tell whether load explains that a message was not confirmed."""
    return isinstance(error, NackedError | RabbitMQDeliveryUnknownError)
