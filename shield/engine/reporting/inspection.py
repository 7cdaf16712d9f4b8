"""A look at a Shield: what it has counted, how near it is to refusing, what its policies show."""

from __future__ import annotations

from shield.accounts import Account, Ledger, copy_of, ledger_of
from shield.capabilities import Observable
from shield.engine.core import Component, Core
from shield.engine.reporting.readiness import (
    Measure,
    highest,
    rules_named,
    until_below,
    wait_until_below,
)
from shield.message import Message
from shield.plugin_results import part_of, status_of
from shield.policy import Policy
from shield.rule import Rule
from shield.verdict import OverLimit


class Inspection(Component):
    """Each look is one moment's, with all answers so far picked up; it changes nothing."""

    def accounts(self) -> list[Account]:
        """Return copies of all accounts, all of the same moment."""
        core = self._core
        core.look()
        with core.lock:
            core.pick_up_answers()
            copies = [copy_of(account) for account in core.books]
        core.hooks.log_what_waits()
        return copies

    def ledger(self) -> Ledger:
        """Return what became of every message offered so far."""
        return ledger_of(self.accounts())

    def pressure(self, rule: str | None = None) -> float:
        """Return how near messages are to being refused: 0 is far, 1 is over the limit now.

        The highest of the rule's policies, on messages like those offered last; without a name,
        of all rules but those in shadow. Where somebody waits in line it is 1: who comes next
        would wait behind. It costs a call to each policy for each pair of producer and
        destination, so that it is for a web handler or a reader to ask, not for every message.

        Raises:
            ShieldError: no rule has that name.
        """
        core = self._core
        rules = rules_named(core.rules, rule)
        core.refuse_itself()
        with core.lock:
            core.pick_up_answers()
            if any(policy.rule in rules for policy, _ in core.lines):
                return 1.0
            measure = _measure(core, core.now())
            refused = (
                measure(policy, message)
                for policy, message in core.judge.refused.items()
                if policy.rule in rules
            )
            return max(highest(rules, core.all_flows(), measure), *refused, 0.0)

    def eased(self, over: OverLimit, mark: float) -> bool:
        """Tell whether the pressure of the policy that refuses it has come down to that mark."""
        core = self._core
        with core.lock:
            core.pick_up_answers()
            return _measure(core, core.now())(over.refusal.policy, over.message) <= mark

    def status(self) -> dict[str, dict[str, dict[str, float | str | None]]]:
        """Return what each rule's policies show of their state, with their pressure.

        By the rule's name, then the policy's; the second of one kind is `quota[1]`.
        """
        core = self._core
        core.refuse_itself()
        with core.lock:
            core.pick_up_answers()
            return {rule.name: _status_of(core, rule) for rule in core.rules}

    def wait_ready(
        self, timeout_s: float | None = None, rule: str | None = None, below: float = 1.0
    ) -> bool:
        """Block until the pressure is below that; False where the time was over first.

        Looks twenty times a second. Who publishes then may still be refused: others were faster.
        """
        return wait_until_below(lambda: self.pressure(rule), below, timeout_s, self._core.clock)

    async def ready(
        self, rule: str | None = None, timeout_s: float | None = None, below: float = 1.0
    ) -> bool:
        """Wait as `wait_ready`, without blocking the loop."""
        return await until_below(lambda: self.pressure(rule), below, timeout_s, self._core.clock)


def _status_of(core: Core, rule: Rule) -> dict[str, dict[str, float | str | None]]:
    now = core.now()
    measure = _measure(core, now)
    shown: dict[str, dict[str, float | str | None]] = {}
    for policy in rule.policies:
        number = sum(name.partition("[")[0] == policy.name for name in shown)
        name = f"{policy.name}[{number}]" if number else policy.name
        lasts = [flow.last for flow in core.all_flows() if flow.last and policy in flow.policies]
        if policy in core.judge.refused:
            lasts.append(core.judge.refused[policy])
        pressure = max((measure(policy, last) for last in lasts), default=0.0)
        shown[name] = {"pressure": pressure}
        if isinstance(policy, Observable):
            nothing: dict[str, float | str | None] = {}
            shown[name] |= core.hooks.ask(policy.status, status_of, nothing, now)
    return shown


def _all_or_nothing(refusal: object) -> float:
    return 0.0 if refusal is None else 1.0


def _measure(core: Core, now: float) -> Measure:
    """Return how to ask a policy for its pressure; one that raises is isolated."""
    hooks = core.hooks
    otherwise = 0.0 if hooks.fail_open else 1.0

    def measure(policy: Policy, message: Message) -> float:
        if isinstance(policy, Observable):
            return hooks.ask(policy.pressure, part_of, otherwise, message, now)
        return hooks.ask(policy.check, _all_or_nothing, otherwise, message, now)

    return measure
