"""`drop` and `raise`: the actions that end every chain they stand in."""

from __future__ import annotations

from collections.abc import Mapping

from shield import Action, OverLimit, action, hookimpl


class DropAction(Action):
    """The message is gone, counted by rule, policy and reason; its caller's result says so."""

    final = True

    def step(self, over: OverLimit) -> action.Step:
        """Always drop."""
        return action.Drop()


class RaiseAction(Action):
    """The message stays with its caller, who gets `OverLimitError`."""

    directions = frozenset({"publish"})
    final = True

    def step(self, over: OverLimit) -> action.Step:
        """Always raise."""
        return action.Raise()


@hookimpl
def shield_actions() -> Mapping[str, type[Action]]:
    """Contribute `drop` and `raise`."""
    return {"drop": DropAction, "raise": RaiseAction}
