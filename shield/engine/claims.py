"""What messages hold until their end is known, and which of it nobody holds any more.

An exception from outside, as Ctrl-C or a worker's time limit, can strike between any two calls: a
verdict is given, and its caller never gets it. So each that is open stands here, and one to which
nothing else refers has lost its owner: nobody can settle it, so that the Shield does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shield.algorithms.refcount import unheld
from shield.verdict import Outcome, OverLimit, Permit

if TYPE_CHECKING:
    from shield.engine.core import Core

Claim = Permit | OverLimit
WITHDRAWN = "withdrawn"
"""The end of what was not handed over after all: it counts as never offered."""


class Claims(set[Claim]):
    """The open verdicts of one Shield; its lock covers every call."""

    def lost(self) -> list[Claim]:
        """Return those whose owner is gone, and forget those that are closed."""
        return list(unheld(self))


class Begun:
    """A settlement that an exception from outside has interrupted: who comes next goes on."""

    __slots__ = ("done", "end", "outcome", "permit")

    open = None
    """Tells it from the permits that it stands among."""

    def __init__(self, permit: Permit, outcome: Outcome | None, end: str | None, done: int) -> None:
        self.permit = permit
        self.outcome = outcome
        self.end = end
        self.done = done

    def go_on(self, core: Core, now: float) -> None:
        """Come to the end of it, if nobody has."""
        if self.permit.open:
            core.conclude(self.permit, self.outcome, self.end, now, self.done)
