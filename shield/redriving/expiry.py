"""Messages that come back too late: the place where they belong would delete them at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from shield.envelope import Envelope
from shield.retention import Retention, spelled

log = logging.getLogger("shield")
MOST_PLACES = 1000
"""Of how many destinations it is known what they keep; beyond, nobody is asked."""

Keeps = Callable[[Envelope], Retention | None]


class ExpiryCheck:
    """Says why a message is not to be written where it was going. Used by one thread.

    Args:
        keeps: returns what the place keeps to which a message would be sent.
        confirmed: whether to write it all the same.
        now_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        keeps: Keeps,
        *,
        confirmed: bool = False,
        now_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        self._keeps = keeps
        self._confirmed = confirmed
        self._now_ms = now_ms
        self._known: dict[tuple[str | None, str], Retention | None] = {}

    def why_not(self, envelope: Envelope) -> str | None:
        """Return why a message would be lost there; None where it would not, or that is meant."""
        kept = self._kept(envelope)
        if kept is None or self._confirmed:
            return None
        if not kept.loses_at_once(envelope.timestamp_ms, self._now_ms()):
            return None
        assert kept.for_s is not None
        return (
            f"it is of {_written(envelope.timestamp_ms)}, and {envelope.destination} keeps "
            f"messages for {spelled(kept.for_s)}: it would be deleted as soon as it is there; let "
            "that keep more, or say --yes"
        )

    def _kept(self, envelope: Envelope) -> Retention | None:
        key = envelope.broker, envelope.destination
        if key not in self._known and len(self._known) < MOST_PLACES:
            self._known[key] = kept = self._keeps(envelope)
            for warning in () if kept is None else kept.warnings(0.0):
                log.warning("%s %s", envelope.destination, warning)
        return self._known.get(key)


def _written(timestamp_ms: int | None) -> str:
    try:
        when = datetime.fromtimestamp((timestamp_ms or 0) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms since 1970"
    return when.isoformat(timespec="seconds")
