"""What happens to one message over the limit, on the side of kafka-python."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kafka.producer.future import RecordMetadata
from kafka.structs import TopicPartition

from shield import End, OverLimit, Permit, fate
from shield.action import Divert
from shield.headers import diverted
from shield.sync import react
from shield_kafka import internals
from shield_kafka.errors import OverLimitError
from shield_kafka.record import Record

if TYPE_CHECKING:
    from shield_kafka.producer import KafkaProducer


class KafkaOutlet:
    """Carries out the steps of a chain for one record. Its result is the client's own future."""

    def __init__(self, producer: KafkaProducer, record: Record) -> None:
        self._producer = producer
        self._record = record
        self._result: internals.FatedResult | None = None
        self._future: Any = None

    def send(self, permit: Permit) -> Any:
        """Send to the topic it was meant for."""
        return self._producer._send_admitted(permit, self._record)

    def drop(self, over: OverLimit) -> Any:
        """Return a future that is done, with offset -1."""
        partition = -1 if self._record.partition is None else self._record.partition
        return self._finish_as("dropped", TopicPartition(self._record.topic, partition))

    def may_wait(self) -> bool:
        """Anywhere but on the I/O thread, which would wait for its own answers."""
        return not internals.on_io_thread(self._producer)

    def error(self, over: OverLimit) -> Exception:
        """Return an error that is also a KafkaError."""
        return OverLimitError(over.rule.name, over.policy, over.reason, over.retry_after_s)

    def divert(self, over: OverLimit, step: Divert, position: int) -> Any:
        """Send to the overflow topic; None where that cannot begin."""
        inner = self._producer._send_diverted(over, step, self._record)
        if inner is None:
            step.done()
            return None
        self._point_at(internals.place_of(inner))
        inner.add_callback(self._arrived, over, step)
        inner.add_errback(self._missed, over, step, position)
        if internals.on_io_thread(self._producer):
            self._producer._follow(inner)
        return self._future

    def _arrived(self, over: OverLimit, step: Divert, metadata: RecordMetadata) -> None:
        step.done()
        self._producer._ended(over, End.OVERFLOWED)
        assert self._result is not None
        self._result.topic_partition = metadata.topic_partition
        self._result.success((metadata.offset, metadata.timestamp, None))

    def _missed(self, over: OverLimit, step: Divert, position: int, error: Exception) -> None:
        """Go on with the chain: the overflow send failed. What ends it completes the future."""
        step.done()
        result = self._result
        assert result is not None
        try:
            future = react(over, self, position + 1)
        except Exception as raised:
            raised.__cause__ = raised.__cause__ or error
            result.fate = "raised"
            result.failure(raised)
            return
        if future is not self._future:
            result.fate = fate(future)
            future.add_callback(
                lambda metadata: result.success((metadata.offset, metadata.timestamp, None))
            )
            future.add_errback(result.failure)

    def _point_at(self, place: TopicPartition) -> None:
        """Make the future that the caller gets, or let the one made before follow the new send."""
        if self._result is None:
            self._result = internals.FatedResult(place, "overflowed")
            timestamp_ms = self._record.timestamp_ms
            self._future = internals.future_for(self._result, timestamp_ms, self._record.sizes)
        self._result.topic_partition = place

    def _finish_as(self, fate: str, place: TopicPartition) -> Any:
        timestamp_ms = self._record.timestamp_ms
        if timestamp_ms is None:
            timestamp_ms = int(time.time() * 1000)
        if self._result is None:
            self._result = internals.FatedResult(place, fate)
            self._future = internals.future_for(self._result, timestamp_ms, self._record.sizes)
        self._result.fate = fate
        self._result.topic_partition = place
        self._result.success((-1, timestamp_ms, None))
        return self._future


def diverted_headers(over: OverLimit, record: Record) -> list[tuple[str, bytes]]:
    """Return the record's own headers with ours, each of ours once."""
    ours = diverted(over)
    kept = [header for header in record.headers or () if header[0] not in ours]
    return kept + [(name, text.encode()) for name, text in ours.items()]
