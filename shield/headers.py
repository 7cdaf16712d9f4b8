"""The headers of a diverted message: where it was going, why it was not let through."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from shield.message import Message
from shield.verdict import OverLimit

PREFIX = "shield-"
ATTEMPT = "shield-attempt"
MESSAGE_ID = "shield-message-id"


def diverted(over: OverLimit) -> dict[str, str]:
    """Return the headers that a diverted message gets beside its own.

    The id stays with a message however often it is diverted; the attempt counts how often.
    """
    message = over.message
    headers = {
        "shield-original-destination": message.destination,
        "shield-reason": over.reason,
        "shield-rule": over.rule.name,
        "shield-policy": over.policy,
        "shield-producer": message.producer,
        "shield-diverted-at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        ATTEMPT: str(attempts(message) + 1),
        MESSAGE_ID: message.header(MESSAGE_ID) or str(uuid.uuid4()),
    }
    if message.routing_key is not None:
        headers["shield-original-routing-key"] = message.routing_key
    return headers


def attempts(message: Message) -> int:
    """Return how often a message has been diverted before; 0 where its header is no number."""
    text = message.header(ATTEMPT) or "0"
    return int(text) if text.isdecimal() else 0
