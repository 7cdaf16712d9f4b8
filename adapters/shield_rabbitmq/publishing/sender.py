"""What happens to one message over the limit, on the side of RabbitMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shield import Envelope, OverLimit, Permit, Transport
from shield.action import Divert
from shield.chain.runner import diverted_ended
from shield.errors import ExpiredError
from shield.headers import diverted, signed
from shield_rabbitmq.client.envelopes import envelope_of
from shield_rabbitmq.client.errors import RabbitMQOverLimitError, WithdrawnError
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.client.properties import kept, now_ms, sendable, set_aside
from shield_rabbitmq.client.raw_properties import EXPIRATION, Encoded
from shield_rabbitmq.connection.pending_publish import Confirm, PendingPublish

if TYPE_CHECKING:
    from shield_rabbitmq.publishing.publisher import Publisher


class PublisherPort:
    """Carries out the steps of a chain for one message. Its result is one future throughout."""

    __slots__ = ("_future", "_parcel", "_publisher", "_sent_ms")

    def __init__(self, publisher: Publisher, parcel: Frames) -> None:
        self._publisher = publisher
        self._parcel = parcel
        self._sent_ms = now_ms()
        self._future = Confirm()

    @property
    def client(self) -> Transport:
        """The publisher, as what is kept goes back through it."""
        return self._publisher._transport

    def send(self, permit: Permit) -> Confirm:
        """Send where it was going; not what was withdrawn meanwhile, or has expired."""
        if self._future.withdrawn:
            permit.cancel()
            place = self._parcel.destination
            self.fail(WithdrawnError(f"a message to {place!r} was cancelled"))
            return self._future
        parcel = self._parcel
        if self._future.shield_fate != "buffered":
            self.pending("sent")
        elif EXPIRATION in parcel.properties.fields:
            try:
                parcel = self._aged()
            except ExpiredError:
                permit.expired()
                self._future.shield_fate = "dropped"
                self.succeed()
                return self._future
        return self._publisher._send(permit, parcel, self._future, self)

    def _aged(self) -> Frames:
        """Return the message with as much time to live as is left of it."""
        one = self._parcel
        properties, mandatory = sendable(self._kept(), now_ms())
        return Frames(one.exchange, one.routing_key, one.body, properties, mandatory)

    def drop(self, over: OverLimit) -> Confirm:
        """Return a future that is done, with None."""
        self._future.shield_fate = "dropped"
        self.succeed()
        return self._future

    def may_wait(self) -> bool:
        """Anywhere but on the write thread."""
        return self._publisher._may_wait()

    def may_leave(self) -> bool:
        """Return True: a publisher has no transactions."""
        return True

    def error(self, over: OverLimit) -> Exception:
        """Return an error that is also an AMQPError."""
        return over.error(RabbitMQOverLimitError)

    def divert(self, over: OverLimit, step: Divert, position: int) -> Confirm | None:
        """Send to the overflow exchange; None where it is known to be missing, or is the same.

        Also while the broker takes no messages: it would hang there.
        """
        exchange, _, routing_key = step.destination.partition("/")
        target = (exchange, routing_key or self._parcel.routing_key)
        writer = self._publisher._writer
        same = target == (self._parcel.exchange, self._parcel.routing_key)
        if same or writer.blocked or writer.missing(exchange) is not None:
            step.done()
            return None
        try:
            properties = set_aside(
                self._kept(), signed(diverted(over), self._parcel.body, over.engine.signer)
            )
            parcel = Frames(*target, self._parcel.body, properties, mandatory=True)
        except (TypeError, ValueError):  # a destination, or a header of ours, that is too long
            step.done()
            return None
        future = self.pending("overflowed")
        writer.put(Diverted(parcel, self, over, step, position))
        return future

    def pending(self, fate: str) -> Confirm:
        """Return the future, with its fate for `shield.fate`."""
        self._future.shield_fate = fate
        return self._future

    def succeed(self) -> None:
        """Complete the future."""
        self._future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Fail the future."""
        self._future.set_exception(error)

    def follow(self, result: Confirm) -> None:
        """Do nothing: there is one future throughout."""

    def envelope(self) -> Envelope:
        """Return the message with its properties as they go on the wire."""
        return envelope_of(self._parcel, self._kept(), self._publisher._producer)

    def _kept(self) -> Encoded:
        return kept(self._parcel.properties, self._parcel.mandatory, self._sent_ms)


class Diverted(PendingPublish):
    """A message on its way to an overflow exchange."""

    __slots__ = ("_outlet", "_over", "_position", "_step")
    may_decline = True

    def __init__(
        self, parcel: Frames, outlet: PublisherPort, over: OverLimit, step: Divert, position: int
    ) -> None:
        super().__init__(parcel)
        self._outlet = outlet
        self._over = over
        self._step = step
        self._position = position

    @property
    def declares(self) -> bool:
        """Whether the rule says so."""
        return self._step.declare

    def finish(self, error: Exception | None) -> None:
        """Tell the action that it is done, and the outlet how."""
        self._step.done()
        diverted_ended(self._over, self._outlet, self._position, error)
