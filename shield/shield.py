"""The Shield: what users make, and ask; its engine does the work."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shield.clock import SYSTEM_CLOCK, Clock
from shield.config.settings import ShieldSettings, load_settings, read_settings
from shield.engine.engine import ShieldEngine
from shield.process_hooks import ForkStage, after_fork
from shield.rule import Rule


class Shield:
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
        if not isinstance(settings, ShieldSettings):
            settings = read_settings(settings or {}, plugins)
        self.engine = engine = ShieldEngine(settings, clock or SYSTEM_CLOCK)
        """What adapters, chains and plugins ask: all that it can do beside."""
        self.clock, self.settings, self.registry = engine.clock, settings, settings.registry
        self.admit = engine.admit
        self.ledger, self.status, self.pressure = engine.ledger, engine.status, engine.pressure
        self.ready, self.wait_ready = engine.ready, engine.wait_ready
        self.plugin_errors = engine.plugin_errors
        """How often each plugin raised, by its name."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, compiled, in file order; those whose mode is `off` are left out."""
        return self.engine.rules

    @classmethod
    def load(cls, path: str | Path | None = None, *, plugins: Iterable[object] = ()) -> Shield:
        """Return a Shield from a file, else `$SHIELD_CONFIG`, `./shield.toml`, or defaults.

        Raises:
            SettingsError: where the file is missing, unreadable or wrong.
        """
        return cls(load_settings(path, plugins))


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
