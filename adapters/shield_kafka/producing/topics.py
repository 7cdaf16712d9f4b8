"""Overflow topics of one producer: never a hang where one does not exist."""

from __future__ import annotations

import logging
import threading
import time

from kafka import KafkaProducer

from shield_kafka.client import internals

log = logging.getLogger("shield.kafka")
FIRST_WAIT_S = 2.0
ASK_EVERY_S = 5.0


class OverflowTopics:
    """Knows which overflow topics can be sent to now.

    The first diversions to a topic wait for its metadata, until two seconds after the very first.
    A topic that was not there by then is asked for in the background every five seconds, and
    until it is there diversions to it are declined at once. The producer's I/O thread never
    waits: it would wait for itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wait_until: dict[str, float] = {}
        self._ask_after: dict[str, float] = {}

    def ready(self, producer: KafkaProducer, topic: str) -> bool:
        """Tell whether a send to the topic would begin at once."""
        if internals.knows(producer, topic):
            return True
        left_s, due = self._look_at(topic, time.monotonic())
        if left_s > 0 and not internals.on_io_thread(producer):
            wait_ms = min(left_s * 1000, producer.config["max_block_ms"])
            return internals.learn(producer, topic, wait_ms)
        if due:
            log.warning(
                "topic %s is not there; what was to overflow there goes on in its chain", topic
            )
            internals.ask_for(producer, topic)
        return False

    def _look_at(self, topic: str, now: float) -> tuple[float, bool]:
        """Return how long one may still wait for the topic, and whether to ask for it again."""
        with self._lock:
            left_s = self._wait_until.setdefault(topic, now + FIRST_WAIT_S) - now
            due = now >= self._ask_after.get(topic, 0.0)
            if due and left_s <= 0:
                self._ask_after[topic] = now + ASK_EVERY_S
        return left_s, due
