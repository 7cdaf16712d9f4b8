"""What Kafka tells a producer, for policies."""

from __future__ import annotations

from shield import Signals
from shield_kafka.client.internals import Produced, Queued

TELLS = frozenset(
    {"backlogs", "latency", "queue_s", "requests", "throttle_s", "throttled_until", "waits_since"}
)
"""Which signals a producer tells."""


def hear(signals: Signals, produced: Produced) -> None:
    """Note what the answer to a produce request tells: once a request, never per message.

    The latency is from the wire to the answer, without the time in the batch; where the broker
    throttles by a quota of its own, the client is silent for `throttle_s` after the answer.
    """
    now = signals.now()
    signals.latency.add(now, produced.latency_s)
    signals.queue_s = produced.queue_s
    signals.throttle_s = produced.throttle_s
    signals.throttled_until = now + produced.throttle_s
    signals.requests = produced.requests
    signals.changed()


def look(signals: Signals, queued: Queued) -> None:
    """Note what is on the wire, and since when the oldest of what is not could have been sent.

    Once each time the I/O thread goes to listen, also while the broker answers nothing.
    """
    signals.requests = queued.requests
    signals.waits_since = None if queued.waits_s is None else signals.now() - queued.waits_s
    signals.changed()
