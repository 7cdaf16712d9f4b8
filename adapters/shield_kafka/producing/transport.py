"""The way back through a producer: what was set aside goes out as its user would have sent it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shield import Envelope, Outcome, ShieldError, Signals, Source, Transport
from shield.retention import Retention
from shield.transport import Done
from shield_kafka.client import internals
from shield_kafka.client.address import address_like
from shield_kafka.client.errors import FAULTY, HOPELESS, outcome_of
from shield_kafka.client.placement import Placement
from shield_kafka.client.record import Record
from shield_kafka.producing.batches import BatchAnswers

if TYPE_CHECKING:
    from shield_kafka.producing.producer import KafkaProducer


log = logging.getLogger("shield.kafka")


class ProducerTransport(Transport):
    """Sends envelopes through a user's own producer, past its quotas: they are admitted already.

    Does not keep the producer alive; once that is gone or closed, every send fails.
    """

    scheme = "kafka"

    def __init__(self, producer: KafkaProducer, signals: Signals) -> None:
        self._producer = weakref.ref(producer)
        self._answers: BatchAnswers[Done] = BatchAnswers(_succeeded, _failed)
        self._placing = Placement()
        self.signals = signals

    def send(self, envelope: Envelope, done: Done) -> None:
        """Send to the envelope's topic, with its key, headers, timestamp and partition."""
        producer = self._producer()
        if producer is None:
            done(ShieldError("the producer is gone"))
            return
        topic = envelope.destination
        if not producer._overflow_topics.ready(producer, topic):
            done(internals.topic_missing(producer, topic))
            return
        try:
            partition = self._placing.partition(producer, topic, envelope)
            record = record_of(envelope)._replace(partition=partition)
            future = producer._send_ours(producer._as_serialized(record))
        except Exception as error:
            done(error)
            return
        self._answers.expect(done, future)

    def way_back(self, destination: str) -> Source:
        """Return what reads a topic of the producer's cluster, with its way to connect."""
        producer = self._producer()
        if producer is None:
            raise ShieldError("the producer is gone")
        from shield_kafka.remote.source import TopicSource

        return TopicSource(address_like(producer.config, destination))

    def keeps(self, envelope: Envelope) -> Retention | None:
        """Return what the envelope's topic keeps, asked with the producer's way to connect."""
        producer = self._producer()
        if producer is None:
            return None
        from shield_kafka.operations.retention import TopicRetention

        topic = envelope.destination
        return TopicRetention(address_like(producer.config, topic)).of(topic)

    @property
    def is_open(self) -> bool:
        """Whether the producer is there and not closed, nor its parent's after a fork."""
        producer = self._producer()
        return not (producer is None or producer._closed or producer._forked)

    def may_wait(self) -> bool:
        """Anywhere but on the producer's I/O thread."""
        producer = self._producer()
        return producer is None or producer._may_wait()

    def outcome_of(self, error: Exception) -> Outcome:
        """Tell overload from all other errors, as for the producer's own sends."""
        return outcome_of(error)

    def is_hopeless(self, error: Exception) -> bool:
        """Tell what no broker would take, ever, from all other errors."""
        return isinstance(error, HOPELESS)

    def is_faulty(self, error: Exception) -> bool:
        """Tell what is wrong with the message itself from what is wrong with its topic."""
        return isinstance(error, FAULTY)

    def close(self, timeout_s: float) -> None:
        """Do nothing: the producer is its user's."""


def _succeeded(dones: Sequence[Done]) -> None:
    for done in dones:
        try:
            done(None)
        except Exception:  # as the client does: one that raises keeps nothing from the others
            log.exception("who waited for a message to arrive raised")


def _failed(done: Done, error: BaseException) -> None:
    done(error if isinstance(error, Exception) else RuntimeError(repr(error)))


def record_of(envelope: Envelope) -> Record:
    """Return the arguments of a send that has been serialized."""
    carries = envelope.headers or envelope.marks
    headers = internals.headers_for(envelope.all_headers()) if carries else None
    return Record(
        envelope.destination,
        envelope.body,
        envelope.key,
        headers,
        envelope.partition,
        None if envelope.is_diverted else envelope.timestamp_ms,
    )
