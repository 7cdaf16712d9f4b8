"""By when a message is of use, as its producer has written it into a header."""

from __future__ import annotations

from datetime import UTC, datetime


def seconds_of(text: str) -> float | None:
    """Return seconds since 1970 from RFC 3339 or from epoch milliseconds; None for what is neither.

    A time without an offset is UTC.
    """
    try:
        return int(text) / 1000 if text.isdecimal() else _from_rfc_3339(text)
    except (ValueError, OverflowError):
        return None


def _from_rfc_3339(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
