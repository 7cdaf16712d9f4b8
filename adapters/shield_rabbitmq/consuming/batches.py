"""Deliveries that pika has read and not handed over yet, decided on together."""

from __future__ import annotations

from typing import Any

from shield import Delivery, Outcome, Permit, Shield
from shield_rabbitmq.client import internals

LONGEST = 32
"""More would save nothing, and be counted as in flight long before it is handed over."""


class Batch:
    """Messages admitted together, of which some are still to come."""

    __slots__ = ("_size", "left", "part", "permit", "shield")

    def __init__(self, shield: Shield, permit: Permit) -> None:
        self.shield = shield
        self.permit = permit
        self.left = permit.message.messages
        """How many are to come."""
        self._size = permit.message.size
        """How many bytes they have."""
        self.part: Permit | None = None
        """The answer that has been put down last."""

    def next(self, size: int) -> BatchShare:
        """Return what the next message holds."""
        self.left -= 1
        self._size -= size
        return BatchShare(self, size)

    def withdraw(self) -> None:
        """Note that the rest will not be handed over."""
        if self.left:
            self.shield.engine.withdraw(
                self.shield.engine.split(self.permit, self.left, self._size)
            )
            self.left = 0


class BatchShare:
    """What one message of a run holds, until it is acknowledged; like a Permit."""

    __slots__ = ("_run", "_size")

    def __init__(self, run: Batch, size: int) -> None:
        self._run = run
        self._size = size

    def delivered(self) -> None:
        """Settle as delivered."""
        run = self._run
        run.part = run.shield.engine.part_delivered(run.permit, run.part, self._size)

    def settle(self, outcome: Outcome) -> None:
        """Settle with any outcome."""
        if outcome is Outcome.DELIVERED:
            self.delivered()
        else:
            self._run.shield.engine.split(self._run.permit, 1, self._size).settle(outcome)


class Batcher:
    """Finds runs among what a blocking channel has read for one consumer.

    A run that is refused halves the next one, down to single messages; one that is admitted
    doubles it.
    """

    def __init__(self, shield: Shield, consumer: str, queue: str) -> None:
        self._shield = shield
        self._consumer = consumer
        self._queue = queue
        self._most = LONGEST

    def run(self, channel: Any, method: Any, properties: Any, body: bytes) -> Batch | None:
        """Admit a message together with those behind it; None where it is to be asked about."""
        if self._most == 1:
            self._most = 2
            return None
        events = internals.undispatched(channel, method.consumer_tag, self._most - 1)
        if not events:
            return None
        size = len(body) + sum([len(event.body) for event in events])
        times = [event.properties.timestamp for event in events]
        times.append(properties.timestamp)
        written_s = min((float(each) for each in times if each is not None), default=None)
        several = Delivery(
            self._queue, size, self._consumer, written_s=written_s, messages=len(times)
        )
        permit = self._shield.engine.receive_run(several)
        if permit is None:
            self._most = max(1, len(times) // 2)
            return None
        self._most = min(LONGEST, 2 * self._most)
        return Batch(self._shield, permit)
