"""By when a message is of use: its expiration."""

from __future__ import annotations

from typing import Any

from pika import BasicProperties


def deadline_of(properties: BasicProperties | None, now: float) -> float | None:
    """Return when a message expires, in monotonic seconds; None where it does not.

    Also for 0, which RabbitMQ takes for "at once or not at all", and for what it will refuse.
    """
    expiration: Any = getattr(properties, "expiration", None)
    if expiration is None:
        return None
    text = str(expiration)
    after_ms = int(text) if text.isdecimal() and text.isascii() else 0
    return now + after_ms / 1000 if after_ms else None
