"""`retry N`: ask again after a pause, N times at the most, within a budget of the whole process."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from shield import Action, OverLimit, StrictModel, action, hookimpl


class RetrySettings(StrictModel):
    """How often to ask again."""

    times: int = Field(ge=1)
    """How often at the most, as `retry 3`; each time after a pause that the policy agrees with."""


class RetryAction(Action):
    """The caller waits and asks again; declines when refused N times, or the budget is spent.

    Good at: a burst of refusals that is over in a moment. Bad at: fairness and steady overload;
    whoever stands in line (`wait`, `buffer`) comes first, and all that a process retries is 10% of
    what it sends, or 3 a second.
    """

    Settings = RetrySettings
    directions = frozenset({"publish"})
    argument = "times"

    def step(self, over: OverLimit) -> action.Step:
        """Ask again."""
        return action.Retry(self.settings.times)


@hookimpl
def shield_actions() -> Mapping[str, type[Action]]:
    """Contribute `retry`."""
    return {"retry": RetryAction}
