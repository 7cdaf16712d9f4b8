"""`blocked` and `broker_throttle`: the broker itself has told the client to stop for a while."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shield import Signals, StrictModel
from shield.plugins.policies.broker_signals.signal_policy import GradedSignalPolicy, SignalPolicy
from shield.units import Seconds


class BlockedSettings(StrictModel):
    """What it means that the broker has blocked a connection."""

    means: Literal["over_limit"]
    """`over_limit`: messages take the chain while it lasts, and do not wait in the client."""


class Blocked(SignalPolicy):
    """Refuses while the broker takes nothing from this connection.

    RabbitMQ blocks a connection that publishes during a memory or disk alarm
    (`connection.blocked`, https://www.rabbitmq.com/docs/connection-blocked), and says when it is
    over; who waits is let in then. What was handed to the client before it was blocked stays
    there. RabbitMQ says nothing before the connection has published something, nor when it slows
    a connection down by credit flow: `client_queue` and `confirm_window` notice that.

    Example:
        blocked = "over_limit"
    """

    Settings = BlockedSettings
    shorthand = "means"
    required_signals = frozenset({"blocked"})
    reason = "blocked by the broker"
    reaching_is_over = True

    def measure(self, signals: Signals, now: float) -> float:
        """Return 1 while the connection is known to be blocked."""
        return 1.0 if signals.blocked else 0.0


class BrokerThrottleSettings(StrictModel):
    """How long the broker may make the client wait."""

    above: Seconds = Field(default=0.1, gt=0)
    """A wait that is longer is over the limit; a shorter one goes by in the client's own queue."""


class BrokerThrottle(GradedSignalPolicy):
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
        broker_throttle = "100ms"
    """

    Settings = BrokerThrottleSettings
    shorthand = "above"
    required_signals = frozenset({"throttled_until"})
    reason = "throttled by the broker"
    limit_key = "above"

    def measure(self, signals: Signals, now: float) -> float:
        """Return for how many seconds the client holds back yet."""
        until = signals.throttled_until
        return 0.0 if until is None else max(0.0, until - now)

    def retry_after_s(self, signals: Signals, now: float) -> float:
        """Return just that."""
        return self.measure(signals, now)
