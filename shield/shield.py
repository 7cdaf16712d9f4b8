"""The Shield: rules over messages, composed of the engine's parts; one for each process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shield.capabilities import CarriesOver
from shield.clock import SYSTEM_CLOCK, Clock
from shield.config.build import compile_rules
from shield.config.settings import ShieldSettings, load_settings, read_settings
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
from shield.process_hooks import ForkStage, after_fork
from shield.rule import Rule


class Shield(
    Admission,
    Batches,
    ConsumeHints,
    Settlement,
    Sojourns,
    Diversion,
    Waiting,
    Lifecycle,
    Inspection,
    Observation,
):
    """Rules over messages, one account of each message's end. Thread-safe.

    Args:
        settings: what a `shield.toml` holds, as a dict: `{"shield": {...}, "rules": [...]}`;
            environment variables stand in for what it leaves out. Or settings already read.
        plugins: plugin objects or modules to register beside those that entry points name.
        clock: tells the time; tests pass a `shield.testing.ManualClock`. Shields of one clock, as
            all of a program are, share one retry budget.

    After `os.fork` the child has fresh locks, an empty ledger and nothing in flight: what was
    under way belongs to the parent, which settles it. Quota levels are carried over as they
    stood. With `spawn` every process loads its own.

    Raises:
        SettingsError: where anything in the settings is wrong; nothing is half-loaded.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | ShieldSettings | None = None,
        *,
        plugins: Iterable[object] = (),
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or SYSTEM_CLOCK
        if not isinstance(settings, ShieldSettings):
            settings = read_settings(settings or {}, plugins)
        self.settings = settings
        self.registry = settings.registry
        self.signer = settings.signer
        """What signs the headers of what is set aside; None without a `signing_key`."""
        self.rules: tuple[Rule, ...] = compile_rules(self.settings, self.registry)
        self._hooks = Hooks(
            self.registry, self.clock.now, fail_open=self.settings.on_plugin_error == "open"
        )
        self.watched = self._hooks.watch
        """Whether plugins want to hear of each message; then each is settled at once."""
        self._start_empty()
        process.enter(self)

    @classmethod
    def load(cls, path: str | Path | None = None, *, plugins: Iterable[object] = ()) -> Shield:
        """Return a Shield from a file, else `$SHIELD_CONFIG`, `./shield.toml`, or defaults.

        Raises:
            SettingsError: where the file is missing, unreadable or wrong.
        """
        return cls(load_settings(path, plugins))

    def _start_empty(self) -> None:
        for rule in self.rules:
            rule.failed = self._hooks.failed
        self._core = Core(self, self._hooks)
        self.lines, self.answers = self._core.lines, self._core.answers
        self.retries = process.retry_budget(self.clock, self._core.books)
        """How many messages may be retried now, in all Shields together."""

    def __del__(self) -> None:
        """Leave the accounts to the process's ledger, with the answers that are not settled yet."""
        if hasattr(self, "_core") and not sys.is_finalizing():
            self._core.pick_up_answers()
            process.retire(self._core.books)

    def begin_anew(self) -> None:
        """In a child: fresh locks, policies with nothing in flight, an empty ledger."""
        old = [policy for rule in self.rules for policy in rule.policies]
        self.rules = compile_rules(self.settings, self.registry)
        new = [policy for rule in self.rules for policy in rule.policies]
        for policy, before in zip(new, old, strict=True):
            if isinstance(policy, CarriesOver):
                self._hooks.tell([policy.carry_over], before)
        self._core.auto.leave_to_the_parent()
        self._start_empty()


_default: Shield | None = None
_default_lock = threading.Lock()


def default() -> Shield:
    """Return the Shield that everything in this process shares unless told otherwise."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Shield.load()
        return _default


def shield_of(choice: Shield | str | Path | Mapping[str, Any] | None) -> Shield:
    """Return what a `shield=` argument means: a Shield, a file, settings, the shared one."""
    if choice is None:
        return default()
    if isinstance(choice, Shield):
        return choice
    if isinstance(choice, str | Path):
        return Shield.load(choice)
    return Shield(choice)


def _after_fork_in_child() -> None:
    global _default_lock
    _default_lock = threading.Lock()


after_fork(_after_fork_in_child, ForkStage.STATE)
