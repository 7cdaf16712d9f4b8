"""Counts one run's messages on the broker, with librdkafka instead of kafka-python."""

from __future__ import annotations

import time
from collections import Counter

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from shield import ShieldError

GIVE_UP_S = 10.0
MOST = 10_000
NOT_YET = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}


class KafkaReadback:
    """Reads topics from where they ended when this was made; counts what carries a header.

    It assigns partitions to itself instead of joining a group, whose first join takes seconds.
    """

    def __init__(
        self, bootstrap: str, topics: dict[str, list[int]], header: tuple[str, bytes]
    ) -> None:
        self._header = header
        self._counts: Counter[str] = Counter()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "shield-demo",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        places = [(topic, number) for topic, numbers in topics.items() for number in numbers]
        self._next = {place: self._end(place) for place in places}
        self._consumer.assign([TopicPartition(*place, at) for place, at in self._next.items()])

    def count(self, topic: str) -> int:
        """Read that topic to its present end and return how many it holds.

        Raises:
            ShieldError: nothing comes for ten seconds, although there is more.
        """
        ends = {place: self._end(place) for place in self._next if place[0] == topic}
        give_up = time.monotonic() + GIVE_UP_S
        while left := sum(max(0, end - self._next[place]) for place, end in ends.items()):
            for message in self._consumer.consume(min(left, MOST), timeout=0.1):
                self._read(message)
                give_up = time.monotonic() + GIVE_UP_S
            if time.monotonic() > give_up:
                raise ShieldError(f"the broker does not hand out the rest of topic {topic!r}")
        return self._counts[topic]

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _end(self, place: tuple[str, int]) -> int:
        """Return a partition's end offset; a topic just made has a leader after a moment."""
        give_up = time.monotonic() + GIVE_UP_S
        while True:
            try:
                _, end = self._consumer.get_watermark_offsets(
                    TopicPartition(*place), timeout=GIVE_UP_S
                )
            except KafkaException as error:
                if error.args[0].code() not in NOT_YET or time.monotonic() > give_up:
                    raise
                time.sleep(0.05)
            else:
                return int(end)

    def _read(self, message: Message) -> None:
        if message.error() is not None:
            raise ShieldError(f"reading back: {message.error()}")
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        self._next[topic, partition] = offset + 1
        self._counts[topic] += self._header in (message.headers() or ())
