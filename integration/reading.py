"""What a topic holds, seen by a reader that knows nothing of Shield."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer, TopicPartition


def count(address: str, topic: str) -> int:
    """How many records a topic that nobody wrote to in transactions holds."""
    with_offsets = KafkaConsumer(bootstrap_servers=address)
    try:
        places = _places(with_offsets, topic)
        ends = with_offsets.end_offsets(places)
        return sum(ends[place] for place in places)
    finally:
        with_offsets.close()


def read(address: str, topic: str) -> list[Any]:
    """Every record of the topic."""
    consumer = KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    try:
        places = _places(consumer, topic)
        consumer.assign(places)
        expected = sum(consumer.end_offsets(places).values())
        records: list[Any] = []
        while len(records) < expected:
            for batch in consumer.poll(timeout_ms=1000).values():
                records += batch
        return records
    finally:
        consumer.close()


def _places(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
