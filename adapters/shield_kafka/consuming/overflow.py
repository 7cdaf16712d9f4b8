"""Where a consumer sends what is over its limit, with a confirm: before that it skips nothing."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

from shield import Envelope, Kind, OverLimit, Transport
from shield.action import Divert
from shield.clients.diversion import send_through
from shield.headers import BROKER, diverted
from shield.process_hooks import ForkStage, after_fork
from shield.transport import is_hopeless
from shield_kafka.client.address import address_like
from shield_kafka.client.envelopes import envelope_of_fetched
from shield_kafka.remote.transport import KafkaTransport

log = logging.getLogger("shield.kafka")
LOG_EVERY_S = 60.0
MOST_MESSAGES = 1000
MOST_BYTES = 8 * 1024**2
"""What one consumer lets be under way at once: well below the bound of an `overflow`."""


class OverflowSend:
    """One record on its way aside; `error` is known once it has `ended`."""

    __slots__ = ("ended", "error", "hopeless")

    def __init__(self) -> None:
        self.ended = False
        self.error: Exception | None = None
        self.hopeless = False
        """Whether the record is at fault, so that it would fail again."""


class ConsumerOverflow:
    """Sends records to overflow topics of their own cluster, or wherever a transport goes.

    For the cluster it makes a producer of its own with the first record, from what the consumer's
    configuration says about connecting.
    """

    def __init__(self, configs: Mapping[str, Any]) -> None:
        self._address = address_like(configs, topic="")
        self._lock = threading.Lock()
        self._own: Transport | None = None
        self._messages = self._bytes = 0
        self.failed = 0
        """How many could not be sent where they were to go."""
        self._logged_s = -inf
        _alive.add(self)

    @property
    def under_way(self) -> int:
        """How many have no answer yet."""
        return self._messages

    @property
    def has_room(self) -> bool:
        """Whether one more may be under way."""
        return self._messages < MOST_MESSAGES and self._bytes < MOST_BYTES

    def send(self, record: Any, over: OverLimit, step: Divert) -> OverflowSend:
        """Begin to send a record whole, with the headers that say why; `step.done` is called."""
        sending = OverflowSend()
        transport = step.transport or self._within()
        size = over.message.size
        with self._lock:
            self._messages += 1
            self._bytes += size

        def ended(error: Exception | None) -> None:
            step.done()
            with self._lock:
                self._messages -= 1
                self._bytes -= size
            if error is not None:
                sending.hopeless = is_hopeless(transport, error)
                self._note_failed(record, over, step, error)
            sending.error, sending.ended = error, True

        send_through(transport, transport, over, lambda: self._envelope(record, over, step), ended)
        return sending

    def _envelope(self, record: Any, over: OverLimit, step: Divert) -> Envelope:
        """Return the whole record, with the headers that say why it is diverted, and from where."""
        marks = diverted(over)
        if step.transport is not None:
            marks[BROKER] = self._address.origin
        whole = envelope_of_fetched(record, over.message.producer)
        whole = whole.diverted(marks, over.engine.signer)
        return whole if step.transport is not None else replace(whole, destination=step.destination)

    def _note_failed(self, record: Any, over: OverLimit, step: Divert, error: Exception) -> None:
        """Tell observers, and the log once a minute, with how many there were."""
        detail = f"{step.destination}: {error!r}"
        over.engine.report(Kind.NOT_DIVERTED, over.message, detail=detail)
        with self._lock:
            self.failed += 1
            now, failed = time.monotonic(), self.failed
            if now - self._logged_s < LOG_EVERY_S:
                return
            self._logged_s = now
        log.warning(
            "rule %s: %s, partition %s, offset %s cannot be sent to %s and goes on in its chain "
            "(%d so far): %r",
            *(over.rule.name, record.topic, record.partition, record.offset, step.destination),
            *(failed, error),
        )

    def _within(self) -> Transport:
        """Return what sends to the consumer's own cluster."""
        with self._lock:
            if self._own is None:
                self._own = KafkaTransport(self._address)
            return self._own

    def close(self, timeout_s: float) -> None:
        """Close the producer, if one was made."""
        with self._lock:
            own, self._own = self._own, None
        if own is not None:
            own.close(timeout_s)

    def _leave_to_the_parent(self) -> None:
        self._lock = threading.Lock()
        _inherited.append(self._own)
        self._own = None


_alive: weakref.WeakSet[ConsumerOverflow] = weakref.WeakSet()
_inherited: list[Transport | None] = []
"""In a forked child: what is the parent's. It is never touched, and never collected."""


def _mark_forked() -> None:
    for aside in list(_alive):
        aside._leave_to_the_parent()


after_fork(_mark_forked, ForkStage.RESOURCES)
