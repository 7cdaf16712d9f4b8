"""A bare producer for messages that come from elsewhere: no quotas, and every send ends in time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError

from shield import Envelope, UnavailableError
from shield.process_hooks import at_exit, not_at_exit
from shield.transport import Done
from shield_kafka.client import internals
from shield_kafka.client.address import KafkaAddress
from shield_kafka.client.placement import Placement
from shield_kafka.client.serialization import SerializeOnce, as_serialized

CONNECT_WITHIN_MS = 4000
LEARN_WITHIN_MS = 2000
"""How long a topic may take to appear: it may be made by the question."""
DELIVER_WITHIN_MS = 20_000
"""When a send that the cluster has not answered is given up."""
ANSWER_WITHIN_MS = 10_000
REQUEST_BYTES = 16 * 2**20
"""How much goes into one request, unless one message alone is larger."""
COMPRESSED_FROM = 256 * 1024
"""From so many bytes on a message is compressed: its own producer may have had to, for a topic
that takes less than it has."""


class BareProducer(KafkaProducer):  # type: ignore[misc] # kafka-python is untyped
    """kafka-python's own, with two promises less.

    It silences the client's log for all where one is collected; and it has a bound on what a
    message may have, where these were sent by others, with bounds of their own.
    """

    def _ensure_valid_record_size(self, size: int) -> None:
        """Let the broker say what is too large."""

    def flush(self, timeout: float | None = None) -> None:
        """Return when all is sent, in however many batches."""
        internals.flush_whole(super().flush, timeout)

    def __del__(self) -> None:
        if internals.was_made(self):
            self.close(timeout=0)


class BareProducerSender:
    """One connected producer: acks from all replicas, idempotent, nothing serialized.

    Another one with the first large message compresses those, unless the address says how all are
    compressed.

    Raises:
        ShieldError: the cluster does not answer, or does not let us in. Blocks for five seconds.
    """

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._placement = Placement()
        self._compresses_all = "compression_type" in address.producer_configs
        self._producer = self._connected()
        self._large: BareProducer | None = self._producer if self._compresses_all else None
        self._process = os.getpid()
        # The client has its own end at exit registered now, without waiting: ours goes before it.
        at_exit(self.close)

    def _connected(self, **configs: object) -> BareProducer:
        try:
            producer = BareProducer(
                **_soon(self._address.producer_configs | configs),
                acks="all",
                max_block_ms=LEARN_WITHIN_MS,
                max_request_size=REQUEST_BYTES,
                delivery_timeout_ms=DELIVER_WITHIN_MS,
                request_timeout_ms=ANSWER_WITHIN_MS,
                reconnect_backoff_max_ms=2000,
                metrics_enabled=False,
                value_serializer=SerializeOnce(None),  # takes a message with neither key nor value
            )
        except Exception as error:
            raise UnavailableError(f"cannot connect to {self._address.origin}: {error!r}") from None
        internals.fail_alone(producer)
        return producer

    def knows(self, topic: str, envelope: Envelope) -> bool:
        """Tell whether a send to the topic would begin at once."""
        producer = self._producer_of(envelope)
        return producer is not None and internals.knows(producer, topic)

    def learn(self, topic: str, envelope: Envelope) -> bool:
        """Ask for a topic, waiting two seconds at the most; tell whether it is there.

        Connects first, where this is the first large message.
        """
        producer = self._producer_of(envelope)
        if producer is None:
            producer = self._large = self._connected(compression_type="gzip")
        return internals.learn(producer, topic, LEARN_WITHIN_MS)

    def _producer_of(self, envelope: Envelope) -> BareProducer | None:
        return self._large if envelope.size >= COMPRESSED_FROM else self._producer

    def send(self, topic: str, envelope: Envelope, done: Done) -> None:
        """Begin to send to a topic that is known, and to the partition that it was meant for.

        What is set aside goes to any partition, with a time of its own.
        """
        producer = self._producer_of(envelope)
        assert producer is not None
        try:
            internals.refuse_timestamp(envelope.timestamp_ms)
            future = producer.send(
                topic,
                as_serialized(producer.config, "value_serializer", envelope.body),
                envelope.key,
                headers=internals.headers_for(envelope.foreign_headers("kafka")),
                partition=self._placement.partition(producer, topic, envelope),
                timestamp_ms=None if envelope.is_diverted else envelope.timestamp_ms,
            )
        except Exception as error:
            done(error)
            return
        future.add_callback(lambda _metadata: done(None))
        future.add_errback(done)

    def close(self, timeout_s: float) -> None:
        """Wait for the answers to all sends; fail what has none in time."""
        not_at_exit(self.close)
        if os.getpid() != self._process:
            return  # forked: what is unanswered is the parent's
        deadline = time.monotonic() + timeout_s
        for producer in self._producers():
            left_s = max(0.0, deadline - time.monotonic())
            with suppress(KafkaError):  # not all are answered
                producer.flush(left_s)
                producer.close(max(0.0, deadline - time.monotonic()))
            if not internals.is_closed(producer):
                internals.abandon(producer)

    def _producers(self) -> Iterator[BareProducer]:
        yield self._producer
        if self._large is not None and self._large is not self._producer:
            yield self._large


def _soon(configs: dict[str, object]) -> dict[str, object]:
    """Return the configuration such that connecting does not take long."""
    return {"bootstrap_timeout_ms": CONNECT_WITHIN_MS, **configs}
