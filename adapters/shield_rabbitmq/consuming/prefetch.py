"""How much a broker may push to a consumer under rules."""

from __future__ import annotations

from shield import Shield

MOST = 65_535
"""AMQP has sixteen bits for it."""
AHEAD_LEAST, AHEAD = 1_000, 10_000
"""What a consumer is pushed ahead of its quota, where its user has set no prefetch: between these.

Fewer would keep from him what his quota lets through at once, before he has acknowledged any."""
AHEAD_S = 300.0
"""How long the last of them is to wait: RabbitMQ gives up on an acknowledgement after its
`consumer_timeout`, 30 minutes, and several consumers may share a quota."""
USUAL_SIZE = 64 * 1024
"""Bytes of a message, for quotas in bytes: rather too many."""


def prefetch_for(shield: Shield, consumer: str, queue: str, user: int) -> int:
    """Return how many messages of a queue are to be pushed unacknowledged; 0 is any number.

    Args:
        shield: whose rules these are.
        consumer: who receives.
        queue: from where.
        user: what the user has set himself; a smaller number of his stays.

    No more than the rules let be unacknowledged: what could not be handed over here may as well
    go to another consumer, and must not fill memory.
    """
    if not shield.engine.receives(queue, consumer):
        return user
    most = shield.engine.most_unanswered(queue, consumer)
    if most is None:
        return user or _ahead(shield.engine.pace_s(queue, consumer, USUAL_SIZE))
    return min(most, user or most, MOST)


def _ahead(pace_s: float) -> int:
    fits = AHEAD if AHEAD * pace_s <= AHEAD_S else int(AHEAD_S / pace_s)
    return max(AHEAD_LEAST, fits)
