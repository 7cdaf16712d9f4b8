"""The engine of a Shield: its parts over one core, each entry point bound to the part that has it.

A part does one thing, and knows the core alone. What the engine can do is an attribute that is the
part's own method, so that a message pays for no call that only hands it on. Adapters, chains,
plugins and verdicts ask the engine; `shield.engine_api` says what of it those may that stand
below it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from shield.capabilities import CarriesOver
from shield.config.build import compile_rules
from shield.engine import process
from shield.engine.admission import Admission
from shield.engine.batches import Batches
from shield.engine.consume_hints import ConsumeHints
from shield.engine.core import Core
from shield.engine.diversion import Diversion
from shield.engine.hooks import Hooks
from shield.engine.lifecycle import Lifecycle
from shield.engine.queueing.sojourn import Sojourns
from shield.engine.queueing.waiting import Waiting
from shield.engine.reporting.inspection import Inspection
from shield.engine.reporting.observation import Observation
from shield.engine.settlement import Settlement

if TYPE_CHECKING:
    from shield.clock import Clock
    from shield.config.settings import ShieldSettings
    from shield.rule import Rule


class ShieldEngine:
    """Decides on messages, and accounts for them. Thread-safe.

    Args:
        settings: what a `shield.toml` holds, read and valid.
        clock: tells the time.

    Raises:
        SettingsError: settings that are impossible together.
    """

    def __init__(self, settings: ShieldSettings, clock: Clock) -> None:
        self.settings, self.clock = settings, clock
        self.registry, self.signer = settings.registry, settings.signer
        self.rules: tuple[Rule, ...] = compile_rules(settings, self.registry)
        self._hooks = Hooks(self.registry, clock.now, fail_open=settings.on_plugin_error == "open")
        self._core = core = Core(self, self._hooks)
        self._start()
        self._bind_deciding(core)
        self._bind_waiting(core)
        self._bind_telling(core)
        process.enter(self)

    def _start(self) -> None:
        for rule in self.rules:
            rule.failed = self._hooks.failed
        self._core.reset()
        self.lines, self.answers = self._core.lines, self._core.answers
        self.retries = process.retry_budget(self.clock, self._core.books)
        """How many messages may be retried now, in all Shields together."""

    def _bind_deciding(self, core: Core) -> None:
        admission, batches, hints = Admission(core), Batches(core), ConsumeHints(core)
        self.admit, self.receive, self.readmit = (
            admission.admit,
            admission.receive,
            admission.readmit,
        )
        self.plain_flow, self.admit_plain = admission.plain_flow, admission.admit_plain
        self.takes_runs, self.receive_run = batches.takes_runs, batches.receive_run
        self.split, self.join = batches.split, batches.join
        self.part_delivered, self.withdraw = batches.part_delivered, batches.withdraw
        self.would_receive, self.receives = hints.would_receive, hints.receives
        self.most_unanswered, self.pace_s = hints.most_unanswered, hints.pace_s
        settlement = Settlement(core)
        self.settle, self.cancel, self.expired = (
            settlement.settle,
            settlement.cancel,
            settlement.expired,
        )
        self.delivered, self.catch_up = settlement.delivered, settlement.catch_up
        self.signals_changed, self.end = settlement.signals_changed, settlement.end
        self.interrupted, self.count = settlement.interrupted, settlement.count

    def _bind_waiting(self, core: Core) -> None:
        waiting, sojourns, diversion = Waiting(core), Sojourns(core), Diversion(core)
        self.line_up, self.line_up_behind = waiting.line_up, waiting.line_up_behind
        self.ask_again, self.ask_and_stay = waiting.ask_again, waiting.ask_and_stay
        self.ask_once, self.let_through = waiting.ask_once, waiting.let_through
        self.leave, self.draw, self.move_on = waiting.leave, waiting.draw, waiting.move_on
        self.competes_for, self.bond = waiting.competes_for, waiting.bond
        self.standing, self.waited, self.leaves = (
            sojourns.standing,
            sojourns.waited,
            sojourns.leaves,
        )
        self.newest_first, self.refuse = sojourns.newest_first, sojourns.refuse
        self.hold, self.unhold, self.keep = diversion.hold, diversion.unhold, diversion.keep
        self.parked, self.found = diversion.parked, diversion.found
        self.hands_on, self.heard_of = diversion.hands_on, diversion.heard_of

    def _bind_telling(self, core: Core) -> None:
        lifecycle, inspection = Lifecycle(core), Inspection(core)
        self._lifecycle = lifecycle
        self.opened, self.flush, self.closing = (
            lifecycle.opened,
            lifecycle.flush,
            lifecycle.closing,
        )
        self.accounts, self.ledger = inspection.accounts, inspection.ledger
        self.pressure, self.eased = inspection.pressure, inspection.eased
        self.status = inspection.status
        self.wait_ready, self.ready = inspection.wait_ready, inspection.ready
        observation = Observation(core)
        self.plugin_failed = observation.plugin_failed
        self.transport_failed = observation.transport_failed
        self.report, self.backlog_changed = observation.report, observation.backlog_changed
        self.plugin_errors = core.hooks.errors
        """How often each plugin raised, by its name."""
        self.prepares = core.prepares_sent
        """Whether plugins look at what is sent before the verdict: to add to it, or reject it."""

    @property
    def begins_with_a_client(self) -> bool:
        """Whether something comes back, or can be kept, once there is a client: it wants one early.

        For adapters whose users' own clients cannot carry what comes back: they open another one.
        """
        return self._lifecycle.begins_with_a_client

    def __del__(self) -> None:
        """Leave the books to the process's ledger, with the answers that nobody has picked up."""
        if hasattr(self, "answers") and not sys.is_finalizing():
            self._core.pick_up_answers()
            process.retire(self._core.books)

    def begin_anew(self) -> None:
        """In a forked child: fresh locks, policies with nothing in flight, an empty ledger.

        The core is reset in place, so that whoever holds an entry point has that of the child.
        """
        old = [policy for rule in self.rules for policy in rule.policies]
        self.rules = compile_rules(self.settings, self.registry)
        new = [policy for rule in self.rules for policy in rule.policies]
        for policy, before in zip(new, old, strict=True):
            if isinstance(policy, CarriesOver):
                self._hooks.tell([policy.carry_over], before)
        self._core.auto.leave_to_the_parent()
        self._start()
