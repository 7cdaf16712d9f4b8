"""One message over the limit, on its way through a chain: what that may ask a publisher to do."""

from __future__ import annotations

from shield import Envelope, OverLimit, Permit, Transport
from shield.action import Divert
from shield.clients.pending import FuturePort
from shield.errors import ExpiredError
from shield.headers import diverted, signed
from shield.transport import Done
from shield_rabbitmq.client.envelopes import envelope_of
from shield_rabbitmq.client.errors import RabbitMQOverLimitError, WithdrawnError
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.client.properties import kept, now_ms, sendable, set_aside
from shield_rabbitmq.client.raw_properties import EXPIRATION, Encoded
from shield_rabbitmq.connection.pending_publish import Confirm, OverflowPublish
from shield_rabbitmq.publishing.sender import MessageSender


class PublisherPort(FuturePort[Confirm]):
    """Carries out the steps of a chain for one message. Its result is one future throughout.

    Args:
        sender: how its publisher's messages are sent.
        transport: the way back through that publisher.
        frames: the message.
        future: what its caller has, or gets.
    """

    __slots__ = ("_sender", "_sent_ms", "client", "frames")

    over_limit_error = RabbitMQOverLimitError
    client: Transport

    def __init__(
        self,
        sender: MessageSender,
        transport: Transport,
        frames: Frames,
        future: Confirm | None = None,
    ) -> None:
        super().__init__(Confirm() if future is None else future)
        self._sender = sender
        self.client = transport
        self.frames = frames
        self._sent_ms = now_ms()

    def send(self, permit: Permit) -> Confirm:
        """Send where it was going; not what was withdrawn meanwhile, or has expired."""
        if self.future.withdrawn:
            permit.cancel()
            place = self.frames.destination
            self.fail(WithdrawnError(f"a message to {place!r} was cancelled"))
            return self.future
        frames = self.frames
        if self.future.shield_fate != "buffered":
            self.pending("sent")
        elif EXPIRATION in frames.properties.fields:
            try:
                frames = self._aged()
            except ExpiredError:
                permit.expired()
                self.pending("dropped")
                self.succeed()
                return self.future
        return self._sender.send(permit, frames, self.future, self)

    def _aged(self) -> Frames:
        """Return the message with as much time to live as is left of it."""
        one = self.frames
        properties, mandatory = sendable(self._kept(), now_ms())
        return Frames(one.exchange, one.routing_key, one.body, properties, mandatory)

    def may_wait(self) -> bool:
        """Anywhere but on the write thread."""
        return self._sender.may_wait()

    def divert(self, over: OverLimit, step: Divert, ended: Done) -> Confirm | None:
        """Send to the overflow exchange; None where it is known to be missing, or is the same.

        Also while the broker takes no messages: it would hang there.
        """
        exchange, _, routing_key = step.destination.partition("/")
        target = (exchange, routing_key or self.frames.routing_key)
        writer = self._sender.writer
        same = target == (self.frames.exchange, self.frames.routing_key)
        if same or writer.blocked or writer.missing(exchange) is not None:
            return None
        try:
            properties = set_aside(
                self._kept(), signed(diverted(over), self.frames.body, over.engine.signer)
            )
            frames = Frames(*target, self.frames.body, properties, mandatory=True)
        except (TypeError, ValueError):  # a destination, or a header of ours, that is too long
            return None
        future = self.pending("overflowed")
        writer.put(OverflowPublish(frames, step.declare, ended))
        return future

    def envelope(self) -> Envelope:
        """Return the message with its properties as they go on the wire."""
        return envelope_of(self.frames, self._kept(), self._sender.producer)

    def _kept(self) -> Encoded:
        return kept(self.frames.properties, self.frames.mandatory, self._sent_ms)
