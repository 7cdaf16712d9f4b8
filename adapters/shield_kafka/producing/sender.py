"""What happens to one message over the limit, on the side of kafka-python."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kafka.producer.future import RecordMetadata
from kafka.structs import TopicPartition

from shield import End, Envelope, OverLimit, Permit, Transport, fate
from shield.action import Divert
from shield.chain.runner import resume
from shield.headers import Headers, diverted, split_sent
from shield_kafka.client import internals
from shield_kafka.client.errors import KafkaOverLimitError
from shield_kafka.client.record import Record, data_of

if TYPE_CHECKING:
    from shield_kafka.producing.producer import KafkaProducer


class KafkaPort:
    """Carries out the steps of a chain for one record. Its result is the client's own future."""

    __slots__ = ("_future", "_producer", "_record", "_result")

    def __init__(self, producer: KafkaProducer, record: Record) -> None:
        self._producer = producer
        self._record = record
        self._result: internals.FatedResult | None = None
        self._future: Any = None

    def refuse_in_the_call(self) -> None:
        """Raise what the client's own send would raise; note the partition that it would choose."""
        partition = internals.refuse_in_the_call(self._producer, self._record)
        self._record = self._record._replace(partition=partition)

    @property
    def client(self) -> Transport:
        """The producer, as what is kept goes back through it."""
        return self._producer._transport

    def send(self, permit: Permit) -> Any:
        """Send to the topic it was meant for."""
        return self._producer._send_admitted(permit, self._record)

    def drop(self, over: OverLimit) -> Any:
        """Return a future that is done, with offset -1."""
        future = self.pending("dropped")
        self.succeed()
        return future

    def may_wait(self) -> bool:
        """Anywhere but on the I/O thread."""
        return self._producer._may_wait()

    def may_leave(self) -> bool:
        """Never from a transactional producer: what leaves its transaction escapes its fate."""
        return self._producer._transaction is None

    def error(self, over: OverLimit) -> Exception:
        """Return an error that is also a KafkaError."""
        return over.error(KafkaOverLimitError)

    # --- the overflow topic -------------------------------------------------------------------

    def divert(self, over: OverLimit, step: Divert, position: int) -> Any:
        """Send to the overflow topic; None where that cannot begin."""
        inner = self._producer._send_diverted(over, step, self._record)
        if inner is None:
            step.done()
            return None
        future = self.pending("overflowed")
        assert self._result is not None
        self._result.topic_partition = internals.place_of(inner)
        inner.add_callback(self._arrived, over, step)
        inner.add_errback(self._missed, over, step, position)
        if internals.on_io_thread(self._producer):
            self._producer._follow(inner)
        return future

    def _arrived(self, over: OverLimit, step: Divert, metadata: RecordMetadata) -> None:
        step.done()
        self._producer._ended(over, End.OVERFLOWED)
        self._complete(metadata)

    def _missed(self, over: OverLimit, step: Divert, position: int, error: Exception) -> None:
        """Go on with the chain: the overflow send failed. What ends it completes the future.

        Not in a transaction: a send that fails there, or is aborted, ends all of its messages.
        """
        step.done()
        if self._producer._transaction is not None:
            over.end(End.FAILED)
            self.fail(error)
            return
        resume(over, self, position + 1, error)

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
        """Complete it with offset -1: no topic holds the message, or not one of this cluster."""
        assert self._result is not None
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

    # --- kept, or sent elsewhere --------------------------------------------------------------

    def envelope(self) -> Envelope:
        """Return the record with its bytes as they are serialized."""
        return envelope_of(self._record, self._producer._producer_name)


def envelope_of(record: Record, producer: str) -> Envelope:
    """Return the whole message that a record is."""
    key, value = data_of(record.key), data_of(record.value)
    own, marks = split_sent(tuple(record.headers or ()))
    return Envelope(
        destination=record.topic,
        body=None if value is None else bytes(value),
        kind="kafka",
        key=None if key is None else bytes(key),
        headers=own,
        timestamp_ms=record.timestamp_ms,
        partition=record.partition,
        producer=producer,
        marks=marks,
    )


def diverted_headers(over: OverLimit, record: Record) -> Headers:
    """Return the record's own headers with ours, as it is sent aside."""
    envelope = envelope_of(record, over.message.producer)
    return envelope.diverted(diverted(over), over.engine.signer).all_headers()
