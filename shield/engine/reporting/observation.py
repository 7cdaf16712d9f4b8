"""What is said to plugins' observers beside the verdicts and ends, and what of plugins failed."""

from __future__ import annotations

from shield.backlog import BacklogTarget
from shield.engine.core import Component
from shield.events import Kind
from shield.message import Message
from shield.transport import Transport


class Observation(Component):
    """For those outside the deciding: actions, keepers, backlog readers, adapters."""

    def plugin_failed(self, who: object, error: Exception) -> None:
        """Count and log what a plugin raised; the message goes on without it."""
        self._core.hooks.failed(who, error)
        self._core.hooks.log_what_waits()

    def transport_failed(self, transport: Transport, error: Exception) -> None:
        """Log that a send through a transport has failed, once a minute for each."""
        self._core.hooks.note_failed_send(transport, error)

    def report(self, kind: Kind, message: Message, detail: str | None = None) -> None:
        """Tell observers of what an action has done with a message that was set aside."""
        if self._core.hooks.observers:
            self._core.hooks.report(kind, message, detail=detail)

    def backlog_changed(self, place: BacklogTarget, error: str | None) -> None:
        """Tell observers that how much waits there is unknown, and why, or known again (None)."""
        if self._core.hooks.observers:
            kind = Kind.BACKLOG_KNOWN if error is None else Kind.BACKLOG_UNKNOWN
            detail = str(place) if error is None else f"{place}: {error}"
            self._core.hooks.report(kind, None, detail=detail)
