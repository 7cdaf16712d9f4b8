"""What goes wrong with a spool's file."""

from __future__ import annotations

from shield import ShieldError


class SpoolError(ShieldError):
    """A spool's file cannot be used now; the text names it, and what to do. The action declines."""


class DamagedError(SpoolError):
    """The file was a spool of Shield's, and is not as it was written."""
