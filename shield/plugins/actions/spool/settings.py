"""What a rule says of its spool."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shield import StrictModel
from shield.units import ByteSize


class SpoolSettings(StrictModel):
    """How much of the disk, how safe, and how often a message is tried."""

    size: ByteSize = Field(ge=1024 * 1024)
    """The largest that the file grows, as `spool 2GiB`; beyond, the action declines."""
    durability: Literal["fsync", "os"] = "fsync"
    """`fsync`: a message is on the disk itself before its future completes, and survives a power
    cut. `os`: it is with the operating system, and survives the end of the process."""
    max_attempts: int = Field(default=10, ge=1)
    """After so many failures that are the message's own fault it is parked: it stays in the
    file, is shown by `shield spool`, and holds up no other."""
