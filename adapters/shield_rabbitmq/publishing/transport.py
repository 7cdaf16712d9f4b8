"""The way back through a publisher."""

from __future__ import annotations

from pika.connection import Parameters

from shield import Envelope, Outcome, Signals, Source
from shield.clients.client_transport import ClientTransport
from shield.transport import Done
from shield_rabbitmq.client.address import RabbitMQAddress, origin_of
from shield_rabbitmq.client.envelopes import frames_of
from shield_rabbitmq.client.errors import ExchangeError, ReturnedError
from shield_rabbitmq.connection.pending_publish import EnvelopePublish
from shield_rabbitmq.publishing.sender import MessageSender, outcome_of


class PublisherTransport(ClientTransport[MessageSender]):
    """Sends envelopes through a user's own publisher, past its quotas; confirmed, as all it sends.

    What it refers to is the publisher's sender: that is there as long as the publisher, or any of
    its messages that is kept.
    """

    scheme = "amqp"
    kind = "publisher"

    def __init__(self, sender: MessageSender, parameters: Parameters, signals: Signals) -> None:
        super().__init__(sender)
        self.signals = signals
        self.origin = origin_of(parameters)
        self._parameters = parameters

    def send_through(self, client: MessageSender, envelope: Envelope, done: Done) -> None:
        """Publish to the envelope's exchange."""
        client.writer.put(EnvelopePublish(frames_of(envelope), done))

    def way_back(self, destination: str) -> Source:
        """Return what reads a queue of the publisher's broker: `/QUEUE`, or one named as that."""
        from shield_rabbitmq.remote.source import QueueSource

        return QueueSource(RabbitMQAddress(self._parameters, ()), destination.removeprefix("/"))

    def takes_messages(self, client: MessageSender) -> bool:
        """Tell whether it is not closed, nor its parent's after a fork."""
        return client.refuses is None

    def may_wait_for(self, client: MessageSender) -> bool:
        """Anywhere but on the write thread."""
        return client.may_wait()

    def outcome_of(self, error: Exception) -> Outcome:
        """Tell overload from all other errors, as for the publisher's own messages."""
        return outcome_of(error)

    def is_hopeless(self, error: Exception) -> bool:
        """Tell what no queue takes, no exchange, or cannot be encoded, from all other errors."""
        return isinstance(error, ReturnedError | ExchangeError | TypeError | ValueError)

    def is_faulty(self, error: Exception) -> bool:
        """Tell what cannot be encoded, or the broker refuses for what it is."""
        return isinstance(error, TypeError | ValueError)
