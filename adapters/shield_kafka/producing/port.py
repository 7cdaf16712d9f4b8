"""One record over the limit, on its way through a chain: what that may ask kafka-python to do."""

from __future__ import annotations

import time
from typing import Any

from kafka import KafkaProducer as Client
from kafka.producer.future import RecordMetadata
from kafka.structs import TopicPartition

from shield import Envelope, OverLimit, Permit, Transport, fate
from shield.action import Divert
from shield.clients.pending import MessagePort
from shield.transport import Done
from shield_kafka.client import internals
from shield_kafka.client.envelopes import envelope_of
from shield_kafka.client.errors import KafkaOverLimitError
from shield_kafka.client.record import Record
from shield_kafka.producing.sender import RecordSender, may_wait


class KafkaPort(MessagePort[Any]):
    """Carries out the steps of a chain for one record. Its result is the client's own future.

    Args:
        producer: kafka-python's, or its subclass; held until the message has its end.
        sender: how its records are sent.
        transport: the way back through it.
        record: the message, with nothing in it that its caller may change later.
    """

    __slots__ = ("_arrived_at", "_future", "_producer", "_record", "_result", "_sender", "client")

    over_limit_error = KafkaOverLimitError
    client: Transport

    def __init__(
        self, producer: Client, sender: RecordSender, transport: Transport, record: Record
    ) -> None:
        self._producer = producer
        self._sender = sender
        self.client = transport
        self._record = record
        self._result: internals.FatedResult | None = None
        self._future: Any = None
        self._arrived_at: RecordMetadata | None = None

    def refuse_in_the_call(self) -> None:
        """Raise what the client's own send would raise; note the partition that it would choose."""
        partition = internals.refuse_in_the_call(self._producer, self._record)
        self._record = self._record._replace(partition=partition)

    def send(self, permit: Permit) -> Any:
        """Send to the topic it was meant for."""
        return self._sender.send_admitted(self._producer, permit, self._record)

    def may_wait(self) -> bool:
        """Anywhere but on the I/O thread."""
        return may_wait(self._producer)

    def may_leave(self) -> bool:
        """Never from a transactional producer: what leaves its transaction escapes its fate."""
        return self._sender.transaction is None

    def divert(self, over: OverLimit, step: Divert, ended: Done) -> Any:
        """Send to the overflow topic; None where that cannot begin."""
        inner = self._sender.send_diverted(self._producer, over, step, self._record)
        if inner is None:
            return None
        future = self.pending("overflowed")
        assert self._result is not None
        self._result.topic_partition = internals.place_of(inner)
        inner.add_callback(self._arrived, ended)
        inner.add_errback(ended)
        return future

    def _arrived(self, ended: Done, metadata: RecordMetadata) -> None:
        self._arrived_at = metadata
        ended(None)

    def overflowed(self, over: OverLimit) -> None:
        """Count it; in a transaction, when that has its fate."""
        self._sender.overflowed(over)

    def envelope(self) -> Envelope:
        """Return the record with its bytes as they are serialized."""
        return envelope_of(self._record, self._sender.producer_name)

    # --- a future of the client's own class -----------------------------------------------------

    def pending(self, fate: str) -> Any:
        """Return the one future of this message, made when it is first needed."""
        record = self._record
        place = TopicPartition(record.topic, -1 if record.partition is None else record.partition)
        if self._result is None:
            self._result = internals.FatedResult(place, fate)
            self._future = internals.future_for(self._result, record.timestamp_ms, record.sizes)
        self._result.fate = fate
        self._result.topic_partition = place
        return self._future

    def succeed(self) -> None:
        """Complete it as the overflow send ended.

        With offset -1 where there was none: no topic holds the message, or not one of this cluster.
        """
        assert self._result is not None
        if self._arrived_at is not None:
            self._complete(self._arrived_at)
            return
        timestamp_ms = self._record.timestamp_ms
        if timestamp_ms is None:
            timestamp_ms = int(time.time() * 1000)
        self._result.success((-1, timestamp_ms, None))

    def fail(self, error: Exception) -> None:
        """Complete it with an error."""
        assert self._result is not None
        self._result.failure(error)

    def follow(self, result: Any) -> None:
        """Complete it as the client's own future ends."""
        if result is self._future:
            return
        assert self._result is not None
        if self._result.fate != "buffered":
            self._result.fate = fate(result)
        result.add_callback(self._complete)
        result.add_errback(self._result.failure)

    def _complete(self, metadata: RecordMetadata) -> None:
        assert self._result is not None
        self._result.topic_partition = metadata.topic_partition
        self._result.success((metadata.offset, metadata.timestamp, None))
