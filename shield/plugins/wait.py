"""`wait D`: block, or await, up to D, first come, first served."""

from __future__ import annotations

from collections.abc import Mapping

from shield import Action, OverLimit, StrictModel, action, hookimpl
from shield.units import Seconds


class WaitSettings(StrictModel):
    """How long a caller may be kept."""

    limit: Seconds
    """The longest a caller waits, as `wait 200ms`."""


class Wait(Action):
    """The caller waits its turn; a wait that cannot end within the limit declines at once."""

    Settings = WaitSettings
    argument = "limit"

    def step(self, over: OverLimit) -> action.Step:
        """Stand in line."""
        return action.Wait(self.settings.limit)


@hookimpl
def shield_actions() -> Mapping[str, type[Action]]:
    """Contribute `wait`."""
    return {"wait": Wait}
