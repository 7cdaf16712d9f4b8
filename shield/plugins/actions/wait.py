"""`wait D`: block, or await, up to D, first come, first served. `wait`: a consumer pauses."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from shield import Action, OverLimit, StrictModel, action, hookimpl
from shield.units import Seconds


class WaitSettings(StrictModel):
    """How long a caller may be kept."""

    limit: Seconds | None = None
    """The longest a caller waits, as `wait 200ms`; a consumer may leave it out."""


class WaitAction(Action):
    """The caller waits its turn; a wait that cannot end within the limit declines at once.

    In a rule with `direction = "consume"` the message waits with its broker, and what comes behind
    it as well; without a limit only what will never be admitted is declined.
    """

    Settings = WaitSettings
    argument = "limit"

    def validate(self) -> None:
        """Refuse to keep a caller for ever."""
        if self.settings.limit is None and self.rule.direction == "publish":
            raise ValueError('limit is missing; allowed is "wait LIMIT"')

    def step(self, over: OverLimit) -> action.Step:
        """Stand in line."""
        return action.Wait(inf if self.settings.limit is None else self.settings.limit)


@hookimpl
def shield_actions() -> Mapping[str, type[Action]]:
    """Contribute `wait`."""
    return {"wait": WaitAction}
