"""What observers hear of: `shield_on_event(event)`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shield.message import Message


class Kind(StrEnum):
    """What happened."""

    ADMITTED = "admitted"
    OVER_LIMIT = "over_limit"
    WAITED = "waited"
    DROPPED = "dropped"
    RAISED = "raised"
    OVERFLOWED = "overflowed"
    BUFFERED = "buffered"
    SPOOLED = "spooled"
    REDRIVEN = "redriven"
    """What had been set aside is where it belongs."""
    PARKED = "parked"
    """What had been set aside cannot be delivered, and is not tried again by itself."""
    SETTLED = "settled"
    PLUGIN_FAILED = "plugin_failed"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one message, or to a plugin.

    `rule`, `policy` and `reason` are set where a rule refused; `detail` is the outcome of a
    settled message, the error of one that was parked, or that of a plugin that failed.
    """

    kind: Kind
    message: Message | None = None
    rule: str | None = None
    policy: str | None = None
    reason: str | None = None
    detail: str | None = None
