"""Finds what applies to a message, compiled once for each producer and destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shield.engine.policy_set import PolicySet

if TYPE_CHECKING:
    from shield.engine.core import Core

MAX_FLOWS = 10_000


class PolicySets(dict[tuple[str, str], PolicySet]):
    """The flows of one direction, by producer and destination.

    Past 10,000 those that were there are put behind, and forgotten when it is full once more: what
    is still used has come back by then.
    """

    def __init__(self, direction: str, core: Core) -> None:
        super().__init__()
        self._direction = direction
        self._core = core
        self._before: dict[tuple[str, str], PolicySet] = {}

    def recent(self) -> list[PolicySet]:
        """Return all that are remembered; the core's lock is held."""
        return [*self.values(), *self._before.values()]

    def __missing__(self, key: tuple[str, str]) -> PolicySet:
        """Compile the rules that cover messages of this producer to this destination."""
        with self._core.lock:
            flow = self._before.pop(key, None)
            if flow is not None:
                return self._keep(key, flow)
        producer, destination = key
        direction, core = self._direction, self._core
        covering = [r for r in core.rules if r.covers(destination, producer, direction)]
        names = tuple(rule.name for rule in covering)
        policies = (policy for rule in covering for policy in rule.policies)
        with core.lock:
            account = core.books.account(names, producer, direction)
            flow = PolicySet(core.engine, policies, account, watched=core.watched)
            return self._keep(key, flow)

    def _keep(self, key: tuple[str, str], flow: PolicySet) -> PolicySet:
        if len(self) >= MAX_FLOWS:
            self._before = dict(self)
            self.clear()
        self[key] = flow
        return flow
