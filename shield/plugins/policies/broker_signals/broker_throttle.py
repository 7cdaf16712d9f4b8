"""`throttled`: take the chain while a quota of the broker's own makes the client wait."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from pydantic import Field

from shield import Message, Policy, Refusal, Rule, StrictModel, hookimpl
from shield.units import Seconds


class BrokerThrottleSettings(StrictModel):
    """How long the broker may make the client wait."""

    above: Seconds = Field(default=0.1, gt=0)
    """A wait that is longer is over the limit; a shorter one goes by in the client's own queue."""


class BrokerThrottle(Policy):
    """Refuses while the broker has told the client to hold back for longer than `above`.

        over the limit iff time of the last answer + its throttle time - now > above

    Kafka's quotas (per user and client id) answer at once, with the time for which the broker
    will read nothing more from that connection (`throttle_time_ms`, KIP-219); the client is silent
    for so long, and what is sent meanwhile grows in its queue, which kafka-python does not bound.
    A refusal says how long it still lasts; when the time is over messages are admitted, and the
    next answer says whether the quota holds yet. With several brokers it is the last answer of
    any of them.

    Bad at: a short quota window, in which one large batch is throttled for long and the next not.

    Example:
        throttled = "100ms"
    """

    Settings = BrokerThrottleSettings
    directions = frozenset({"publish"})
    goes_by = frozenset({"throttled_until"})
    shorthand = "above"
    listens = True

    def __init__(self, settings: BrokerThrottleSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._above_s = settings.above

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit unless the client is known to be silent for longer than that."""
        left_s = _left_s(message, now)
        return None if left_s <= self._above_s else Refusal(self, "throttled by the broker", left_s)

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the limit is left of the wait."""
        return min(1.0, _left_s(message, now) / self._above_s)

    def line(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals


def _left_s(message: Message, now: float) -> float:
    """Return for how long the client holds back yet; what is not known is no time."""
    until = None if message.signals is None else message.signals.throttled_until
    return 0.0 if until is None else max(0.0, until - now)


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `throttled`."""
    return {"throttled": BrokerThrottle}
