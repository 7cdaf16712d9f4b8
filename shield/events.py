"""What observers hear of: `shield_on_event(event)`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shield.accounts import End
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
    NOT_DIVERTED = "not_diverted"
    """A delivery over the limit could not be sent where its chain says; `detail` says why."""
    BACKLOG_UNKNOWN = "backlog_unknown"
    """How much waits at a broker cannot be read; `detail` says where, and why."""
    BACKLOG_KNOWN = "backlog_known"
    """It can be read again; `detail` says where."""
    PLUGIN_FAILED = "plugin_failed"


END_KINDS = {
    End.DROPPED: Kind.DROPPED,
    End.RAISED: Kind.RAISED,
    End.OVERFLOWED: Kind.OVERFLOWED,
    End.BUFFERED: Kind.BUFFERED,
    End.SPOOLED: Kind.SPOOLED,
}
"""What observers hear of each end that a message over the limit can come to."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one message, to a plugin, or to what is known of a broker.

    `rule`, `policy` and `reason` are set where a rule refused; `detail` is the outcome of a
    settled message, the error of one that was parked, that of a plugin that failed, or where
    messages wait of which it is not known how many.
    """

    kind: Kind
    message: Message | None = None
    rule: str | None = None
    policy: str | None = None
    reason: str | None = None
    detail: str | None = None
