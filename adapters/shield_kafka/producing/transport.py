"""A user's producer as a transport: redriven and buffered messages go out through it."""

from __future__ import annotations

from collections.abc import Sequence

from kafka import KafkaProducer as Client

from shield import Envelope, Outcome, Signals, Source
from shield.clients.client_transport import ClientTransport, answer_all
from shield.retention import Retention
from shield.transport import Done
from shield_kafka.client import internals
from shield_kafka.client.address import address_like
from shield_kafka.client.envelopes import record_of
from shield_kafka.client.errors import FAULTY, HOPELESS, outcome_of
from shield_kafka.client.placement import Placement
from shield_kafka.producing.batches import BatchAnswers
from shield_kafka.producing.sender import RecordSender, may_wait, send_bytes


class ProducerTransport(ClientTransport[Client]):
    """Sends envelopes through a user's own producer, past its quotas."""

    scheme = "kafka"
    kind = "producer"

    def __init__(self, producer: Client, sender: RecordSender, signals: Signals) -> None:
        super().__init__(producer)
        self._sender = sender
        self._answers: BatchAnswers[Done] = BatchAnswers(_succeeded, _failed)
        self._placement = Placement()
        self.signals = signals

    def send_through(self, client: Client, envelope: Envelope, done: Done) -> None:
        """Send to the envelope's topic, with its key, headers, timestamp and partition."""
        topic = envelope.destination
        if not self._sender.overflow_topics.ready(client, topic):
            raise internals.topic_missing(client, topic)
        partition = self._placement.partition(client, topic, envelope)
        future = send_bytes(client, record_of(envelope)._replace(partition=partition))
        self._answers.expect(done, future)

    def way_back(self, destination: str) -> Source:
        """Return what reads a topic of the producer's cluster, with its way to connect."""
        client = self.living()
        if client is None:
            raise self.gone()
        from shield_kafka.remote.source import TopicSource

        return TopicSource(address_like(client.config, destination))

    def keeps(self, envelope: Envelope) -> Retention | None:
        """Return what the envelope's topic keeps, asked with the producer's way to connect."""
        client = self.living()
        if client is None:
            return None
        from shield_kafka.operations.retention import TopicRetention

        topic = envelope.destination
        return TopicRetention(address_like(client.config, topic)).of(topic)

    def takes_messages(self, client: Client) -> bool:
        """Tell whether it is not closed, nor its parent's after a fork."""
        return not (internals.is_closed(client) or self._sender.forked)

    def may_wait_for(self, client: Client) -> bool:
        """Anywhere but on the producer's I/O thread."""
        return may_wait(client)

    def outcome_of(self, error: Exception) -> Outcome:
        """Tell overload from all other errors, as for the producer's own sends."""
        return outcome_of(error)

    def is_hopeless(self, error: Exception) -> bool:
        """Tell what no broker would take, ever, from all other errors."""
        return isinstance(error, HOPELESS)

    def is_faulty(self, error: Exception) -> bool:
        """Tell what is wrong with the message itself from what is wrong with its topic."""
        return isinstance(error, FAULTY)


def _succeeded(dones: Sequence[Done]) -> None:
    answer_all(dones, None)


def _failed(done: Done, error: BaseException) -> None:
    done(error if isinstance(error, Exception) else RuntimeError(repr(error)))
