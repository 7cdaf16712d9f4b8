"""What a channel of its user's can tell policies, and which rules want more than that."""

from __future__ import annotations

from collections.abc import Set

from shield import Policy, Rule, SettingsError, Shield
from shield.engine.reporting.signal_support import Unfit, required_signals, unfit

ALWAYS = frozenset({"blocked"})
BLOCKING = ALWAYS | {"nacks", "returns"}
"""What a BlockingChannel tells with its confirms: how each message ended, one after the other."""
PUBLISHER = ALWAYS | {
    *("backlogs", "in_flight", "latency", "nacks", "queue_bytes", "queue_messages", "returns"),
    "window_used",
}
"""What a `Publisher` does, with its own queue and window."""
LOOP = ALWAYS | {"nacks", "latency", "in_flight"}
"""What a Channel does, as event loops have it, where each confirm is counted."""


class ChannelSignals:
    """Which signals one channel tells: without confirms, which Shield does not turn on, not many.

    Args:
        confirming: which it tells with confirms.
        confirms: whether these are on, and known.
        turn_on: how its user makes them so.
    """

    def __init__(self, confirming: Set[str], confirms: bool, turn_on: str) -> None:
        self._confirming = confirming
        self.confirms = confirms
        self._turn_on = turn_on

    def unfit(self, shield: Shield) -> tuple[Unfit, ...]:
        """Return what has no meaning for this channel, of all rules that it might come under."""
        tells = self._confirming if self.confirms else ALWAYS
        return unfit(shield.rules, tells)

    def error(self, rule: Rule, policy: Policy) -> SettingsError:
        """Return what to raise instead of a publish that such a rule covers."""
        turn_on = f"{self._turn_on}, or " if required_signals(policy) <= self._confirming else ""
        missing = " and ".join(sorted(required_signals(policy)))
        return SettingsError(
            f"rule {rule.name!r}: {policy.name} goes by {missing}, which this channel does not "
            f"tell; {turn_on}publish through shield_rabbitmq.Publisher, or take its messages out "
            "of the rule with match, except or producers"
        )


def listens(shield: Shield) -> bool:
    """Tell whether a rule wants to know of a blocked connection before anything is published."""
    return any(
        "blocked" in required_signals(policy)
        for rule in shield.rules
        if rule.direction == "publish"
        for policy in rule.policies
    )
