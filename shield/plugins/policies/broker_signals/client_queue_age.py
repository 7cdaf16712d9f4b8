"""`queue_time`: take the chain while records wait too long in the client to be sent."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from pydantic import Field

from shield import Message, Policy, Refusal, Rule, StrictModel, hookimpl
from shield.units import Seconds


class ClientQueueAgeSettings(StrictModel):
    """How long records may wait in the client."""

    above: Seconds = Field(default=0.5, gt=0)
    """A wait that is longer is over the limit; the client's own `linger_ms` is no part of it."""


class ClientQueueAge(Policy):
    """Refuses while the oldest record in the client's queue has waited for longer than `above`.

        over the limit iff now - (when the oldest batch was begun + linger) > above

    Kafka's producers put records into batches, one after the other for each partition, and send
    these as far as their connections have room for requests: the time in between is the metric
    `record-queue-time` (https://kafka.apache.org/documentation/#producer_monitoring). It is short
    while the broker keeps up, and grows when it answers late, or not at all, when it throttles the
    client, and when it is away; kafka-python bounds neither the time nor the queue. A batch that is
    being sent anew counts from when it was begun.

    There is no hysteresis: as the oldest goes out messages are admitted, so that at more than the
    broker takes the queue is as long as what it takes in `above`. A partition that has no leader
    holds up all topics of its producer: give such topics a producer of their own.

    Bad at: telling a slow broker from a program that gives the client's thread no time to send.

    Example:
        queue_time = "500ms"
    """

    Settings = ClientQueueAgeSettings
    directions = frozenset({"publish"})
    goes_by = frozenset({"waits_since"})
    shorthand = "above"
    listens = True

    def __init__(self, settings: ClientQueueAgeSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._above_s = settings.above

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit unless something is known to have waited for longer than that."""
        if _waited_s(message, now) <= self._above_s:
            return None
        return Refusal(self, "queue time", None)

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the limit the oldest has waited."""
        return min(1.0, _waited_s(message, now) / self._above_s)

    def line(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals


def _waited_s(message: Message, now: float) -> float:
    """Return how long the oldest has waited; what is not known is no time."""
    since = None if message.signals is None else message.signals.waits_since
    return 0.0 if since is None else max(0.0, now - since)


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `queue_time`."""
    return {"queue_time": ClientQueueAge}
