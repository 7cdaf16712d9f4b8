"""A write thread for messages that come from elsewhere: no quotas, and every send ends in time."""

from __future__ import annotations

from shield import Envelope, Outcome, Signals
from shield.transport import Done
from shield_rabbitmq.client.address import RabbitMQAddress
from shield_rabbitmq.client.envelopes import diverted, frames_of
from shield_rabbitmq.client.errors import CannotConnectError
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.connection.pending_publish import EnvelopePublish
from shield_rabbitmq.connection.write_thread import WriteThread
from shield_rabbitmq.publishing.sender import outcome_of

WINDOW = 1000
RECONNECT_WITHIN_S = 5.0


class RemotePublisher:
    """Confirmed and, where the URL names an exchange, mandatory. Connects with the first message.

    A message waits five seconds for a connection. While there is none for longer than that, one
    message at a time waits to see and all others fail at once, as they do while the broker takes
    no messages (an alarm) and while the exchange is missing. A broker that falls silent is found
    out by its heartbeats, in half a minute at the most; what it had been sent by then has an
    unknown fate.
    """

    def __init__(self, address: RabbitMQAddress) -> None:
        self._address = address
        self.signals = Signals()
        """What the broker tells of this connection."""
        self._writer = WriteThread(
            address.parameters, WINDOW, False, self.signals, RECONNECT_WITHIN_S
        )

    def send(self, envelope: Envelope, done: Done) -> None:
        """Begin to publish."""
        try:
            frames = self._frames(envelope)
            refusal = self._refusal(frames.exchange)
        except Exception as error:  # a header of a type or length that AMQP has not
            refusal = error
        if refusal is not None:
            done(refusal)
        else:
            self._writer.put(EnvelopePublish(frames, done, may_decline=True))

    def _frames(self, envelope: Envelope) -> Frames:
        exchange = self._address.exchange
        if exchange is None:
            return frames_of(envelope)
        own_key = envelope.destination if envelope.routing_key is None else envelope.routing_key
        properties = diverted(envelope)
        routing_key = self._address.routing_key or own_key
        return Frames(exchange, routing_key, envelope.body or b"", properties, mandatory=True)

    def _refusal(self, exchange: str) -> Exception | None:
        """Return why nothing can be sent for now, where that is known."""
        if self._writer.unreachable:
            return CannotConnectError(f"there is no connection to {self._address.origin}")
        if self._writer.blocked:
            return CannotConnectError(f"{self._address.origin} takes no messages for now")
        return self._writer.missing(exchange)

    def outcome_of(self, error: Exception) -> Outcome:
        """Tell overload from all other errors."""
        return outcome_of(error)

    def close(self, timeout_s: float) -> None:
        """Wait for the confirms of all messages; fail what has none in time."""
        self._writer.close(timeout_s)
