"""Which signals a client tells, and which rules want others: with it they would never act."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import TYPE_CHECKING

from shield.capabilities import ReadsSignals
from shield.errors import SettingsError

if TYPE_CHECKING:
    from shield.policy import Policy
    from shield.rule import Rule

Unfit = tuple["Rule", "Policy"]
"""A rule, and the policy in it that has no meaning for a client."""


def required_signals(policy: Policy) -> frozenset[str]:
    """Return which signals a policy has no meaning without."""
    return policy.required_signals if isinstance(policy, ReadsSignals) else frozenset()


def unfit(rules: Iterable[Rule], tells: Set[str]) -> tuple[Unfit, ...]:
    """Return what has no meaning for a client that tells these signals, of all rules."""
    return tuple(
        (rule, policy)
        for rule in rules
        if rule.direction == "publish" and not rule.shadow
        for policy in rule.policies
        if not required_signals(policy) <= tells
    )


def refuse_unfit(
    found: Iterable[Unfit],
    destination: str,
    producer: str,
    error: Callable[[Rule, Policy], SettingsError],
) -> None:
    """Raise where one of these rules covers a message: it would look protected, and not be."""
    for rule, policy in found:
        if rule.covers(destination, producer):
            raise error(rule, policy)


class SignalSupport:
    """Which signals one client tells for as long as it lives.

    Args:
        rules: those that its messages may come under.
        producer: its name.
        tells: the signals, as `Signals` calls them.
        who: what errors call it.
    """

    def __init__(self, rules: Iterable[Rule], producer: str, tells: Set[str], who: str) -> None:
        self.unfit = unfit(rules, tells)
        """Empty where every rule has a meaning; then nothing needs to be asked."""
        self._producer = producer
        self._tells = tells
        self._who = who

    def check(self, destination: str) -> None:
        """Refuse to publish what comes under a rule that cannot act.

        Raises:
            SettingsError: it names the rule and the policy, and says what to do.
        """
        refuse_unfit(self.unfit, destination, self._producer, self._error)

    def _error(self, rule: Rule, policy: Policy) -> SettingsError:
        missing = " and ".join(sorted(required_signals(policy) - self._tells))
        return SettingsError(
            f"rule {rule.name!r}: {policy.name} goes by {missing}, which {self._who} never tells; "
            "take it out of the rule, or these messages with match, except or producers"
        )
