"""A record as a whole message, and a whole message as a record."""

from __future__ import annotations

from typing import Any

from shield import Envelope, OverLimit
from shield.headers import Headers, diverted, split_sent
from shield_kafka.client import internals
from shield_kafka.client.record import Record, data_of


def envelope_of(record: Record, producer: str) -> Envelope:
    """Return the whole message that a record to be sent is, in the bytes as they are serialized."""
    key, value = data_of(record.key), data_of(record.value)
    key = None if key is None else bytes(key)
    value = None if value is None else bytes(value)
    return _envelope(record, key, value, record.timestamp_ms, producer)


def envelope_of_fetched(record: Any, consumer: str) -> Envelope:
    """Return the whole message that a record of a consumer's is, in the bytes that were fetched."""
    key, value = internals.bytes_of(record)
    timestamp_ms = None if record.timestamp in (None, -1) else record.timestamp
    return _envelope(record, key, value, timestamp_ms, consumer)


def _envelope(
    record: Any, key: bytes | None, value: bytes | None, timestamp_ms: int | None, client: str
) -> Envelope:
    own, marks = split_sent(tuple(record.headers or ()))
    return Envelope(
        destination=record.topic,
        body=value,
        kind="kafka",
        key=key,
        headers=own,
        timestamp_ms=timestamp_ms,
        partition=record.partition,
        producer=client,
        marks=marks,
    )


def diverted_headers(over: OverLimit, record: Record) -> Headers:
    """Return the record's own headers with ours, as it is diverted."""
    envelope = envelope_of(record, over.message.producer)
    return envelope.diverted(diverted(over), over.engine.signer).all_headers()


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
