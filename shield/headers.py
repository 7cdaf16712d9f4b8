"""The headers of a message that was set aside: where it was going, why it was not let through."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime

from shield.message import Message
from shield.verdict import OverLimit

PREFIX = "shield-"
ATTEMPT = "shield-attempt"
BROKER = "shield-original-broker"
"""Where it was sent to another broker: the one it was going to, as `Transport.origin` has it."""
DESTINATION = "shield-original-destination"
MESSAGE_ID = "shield-message-id"
POLICY = "shield-policy"
PRODUCER = "shield-producer"
REASON = "shield-reason"
ROUTING_KEY = "shield-original-routing-key"
RULE = "shield-rule"


def diverted(over: OverLimit) -> dict[str, str]:
    """Return the headers that a diverted message gets beside its own.

    The id stays with a message however often it is diverted; the attempt counts how often.
    """
    message = over.message
    headers = {
        DESTINATION: message.destination,
        REASON: over.reason,
        RULE: over.rule.name,
        POLICY: over.policy,
        PRODUCER: message.producer,
        "shield-diverted-at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **identity(message),
    }
    if message.routing_key is not None:
        headers[ROUTING_KEY] = message.routing_key
    return headers


def identity(message: Message) -> dict[str, str]:
    """Return the id of a message that is set aside once more, and how often that has been.

    The id is the one it came with, or is drawn when it is first set aside: copies that a chain
    makes of it, because an overflow send failed that may have arrived, all have the same.
    """
    try:
        own = message.id
    except AttributeError:
        own = message.id = message.header(MESSAGE_ID) or new_id()
    return {ATTEMPT: str(attempts(message) + 1), MESSAGE_ID: own}


def new_id() -> str:
    """Return a random UUID, version 4.

    From a generator of this process's own: the system's would cost more than all else that is
    done about a message, and Python's shared one may be seeded by its user.
    """
    bits = _random.getrandbits(128) & _FREE_BITS | _VERSION_4
    text = f"{bits:032x}"  # as `uuid` writes it, at half the cost
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_VERSION_4 = 4 << 76 | 0x8000 << 48
_FREE_BITS = ~(0xF000 << 64 | 0xC000 << 48)
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)


def attempts(message: Message) -> int:
    """Return how often a message has been diverted before; 0 where its header is no number."""
    return attempts_in(message.header(ATTEMPT))


def attempts_in(text: str | None) -> int:
    """Read the attempt header; 0 where there is none, or it is no number."""
    return int(text) if text is not None and text.isdecimal() else 0
