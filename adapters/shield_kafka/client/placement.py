"""The partition that a message goes back to: the one it was meant for, while its topic has that."""

from __future__ import annotations

import logging
import threading
import time
from math import inf

from kafka import KafkaProducer

from shield import Envelope
from shield_kafka.client import internals

log = logging.getLogger("shield.kafka")
LOG_EVERY_S = 60.0


class Placement:
    """Chooses partitions for what comes back; counts, and logs, what cannot have its own."""

    def __init__(self) -> None:
        self.elsewhere = 0
        """How many went to another partition than theirs, which their topic has no longer."""
        self._lock = threading.Lock()
        self._logged_s = -inf

    def partition(self, producer: KafkaProducer, topic: str, envelope: Envelope) -> int | None:
        """Return a message's partition; None leaves it to the partitioner, which has its key."""
        wanted = envelope.partition
        if wanted is None or envelope.is_diverted or topic != envelope.destination:
            return None
        found = internals.partition_for(producer, topic, wanted)
        if found is None:
            self._note(topic, wanted)
        return found

    def _note(self, topic: str, partition: int) -> None:
        with self._lock:
            self.elsewhere += 1
            now, elsewhere = time.monotonic(), self.elsewhere
            if now - self._logged_s < LOG_EVERY_S:
                return
            self._logged_s = now
        log.warning(
            "topic %s has no partition %s any more: a message that was meant for it goes by its "
            "key (%d so far)",
            *(topic, partition, elsewhere),
        )
