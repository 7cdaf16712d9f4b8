"""`drop_without HEADER`: over the limit, messages that nobody would miss are dropped."""

from __future__ import annotations

import shield
from shield import action


class DropWithout(shield.Action):
    """Drops a message that lacks a header; the others go on to the next action of the chain."""

    class Settings(shield.StrictModel):
        """Which header keeps a message."""

        header: str

    argument = "header"

    def step(self, over: shield.OverLimit) -> action.Step:
        """Drop, or decline and say why, for the error of a message whose chain runs out."""
        if over.message.header(self.settings.header) is None:
            return action.Drop()
        return action.Decline(f"it has the header {self.settings.header}")
