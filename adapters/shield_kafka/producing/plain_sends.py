"""Sends that are told by their size alone: no view of each, and answers counted by the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shield_kafka.client.errors import outcome_of
from shield_kafka.producing.batches import BatchAnswers

if TYPE_CHECKING:
    from shield import Shield
    from shield.engine.policy_set import PolicySet

MAX_TOPICS = 10_000


class PlainSends:
    """One producer's plain sends to one topic: what is claimed of each is its size."""

    __slots__ = ("answers", "flow")

    def __init__(self, flow: PolicySet) -> None:
        self.flow = flow
        """What they are admitted by."""
        self.answers = BatchAnswers[int](self._delivered, self._failed)
        """Takes sizes and the futures of the sends that were admitted."""

    def cancel(self, size: int) -> None:
        """Take back one that was admitted and could not be sent."""
        self.flow.run(1, size).cancel()

    def _delivered(self, sizes: Sequence[int]) -> None:
        self.flow.run(len(sizes), sum(sizes)).delivered()

    def _failed(self, size: int, error: BaseException) -> None:
        self.flow.run(1, size).settle(outcome_of(error))


class PlainTopics(dict[Any, PlainSends | None]):
    """By topic, what its sends are counted with; None where they are not plain."""

    def __init__(self, shield: Shield, producer: str) -> None:
        super().__init__()
        self._shield = shield
        self._producer = producer

    def __missing__(self, topic: Any) -> PlainSends | None:
        """Find out about a topic, once."""
        if len(self) >= MAX_TOPICS:
            self.clear()
        flow = self._shield.engine.plain_flow(topic, self._producer)
        self[topic] = plain = None if flow is None else PlainSends(flow)
        return plain


class NotPlain(PlainTopics):
    """That of a transaction, whose messages have their ends when it has."""

    def __missing__(self, topic: Any) -> None:
        return None
