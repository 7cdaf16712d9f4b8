"""A bare producer for messages that come from elsewhere: no quotas, and every send ends in time."""

from __future__ import annotations

import atexit
import os
import time
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError

from shield import Envelope, UnavailableError
from shield.transport import Done
from shield_kafka import internals
from shield_kafka.address import Address

CONNECT_WITHIN_MS = 4000
LEARN_WITHIN_MS = 2000
"""How long a topic may take to appear: it may be made by the question."""
DELIVER_WITHIN_MS = 20_000
"""When a send that the cluster has not answered is given up."""
ANSWER_WITHIN_MS = 10_000
EXIT_WITHIN_S = 10.0


class BareProducer(KafkaProducer):  # type: ignore[misc] # kafka-python is untyped
    """kafka-python's own, which silences the client's log for all where one is collected."""

    def __del__(self) -> None:
        if internals.was_made(self):
            self.close(timeout=0)


class Carrier:
    """One connected producer: acks from all replicas, idempotent, nothing serialized.

    Raises:
        ShieldError: the cluster does not answer, or does not let us in. Blocks for five seconds.
    """

    def __init__(self, address: Address) -> None:
        where = address.origin
        try:
            self._producer = BareProducer(
                **_soon(address.producer_configs),
                acks="all",
                max_block_ms=LEARN_WITHIN_MS,
                delivery_timeout_ms=DELIVER_WITHIN_MS,
                request_timeout_ms=ANSWER_WITHIN_MS,
                reconnect_backoff_max_ms=2000,
                metrics_enabled=False,
            )
        except Exception as error:
            raise UnavailableError(f"cannot connect to {where}: {error!r}") from None
        self._where = where
        self._process = os.getpid()
        # The client has its own end at exit registered now, without waiting: ours goes before it.
        atexit.register(self.close, EXIT_WITHIN_S)

    def knows(self, topic: str) -> bool:
        """Tell whether a send to the topic would begin at once."""
        return internals.knows(self._producer, topic)

    def learn(self, topic: str) -> bool:
        """Ask for a topic, waiting two seconds at the most; tell whether it is there."""
        return internals.learn(self._producer, topic, LEARN_WITHIN_MS)

    def send(self, topic: str, envelope: Envelope, partition: int | None, done: Done) -> None:
        """Begin to send to a topic that is known."""
        try:
            future = self._producer.send(
                topic,
                envelope.body,
                envelope.key,
                headers=list(envelope.foreign_headers("kafka")),
                partition=partition,
                timestamp_ms=envelope.timestamp_ms,
            )
        except Exception as error:
            done(error)
            return
        future.add_callback(lambda _metadata: done(None))
        future.add_errback(done)

    def close(self, timeout_s: float) -> None:
        """Wait for the answers to all sends; fail what has none in time."""
        atexit.unregister(self.close)
        if os.getpid() != self._process:
            return  # forked: what is unanswered is the parent's
        deadline = time.monotonic() + timeout_s
        with suppress(KafkaError):  # not all are answered
            self._producer.flush(timeout_s)
            self._producer.close(max(0.0, deadline - time.monotonic()))
        if not internals.is_closed(self._producer):
            internals.abandon(self._producer)


def _soon(configs: dict[str, object]) -> dict[str, object]:
    """Return the configuration such that connecting does not take long."""
    return {"bootstrap_timeout_ms": CONNECT_WITHIN_MS, **configs}
