from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# CI repeats the same examples, so that it fails for a change and not for luck; others explore.
# An example that is slow on a loaded machine is no failure: pytest-timeout ends what hangs.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "explore")

NOBODY = 65534

pytest.register_assert_rewrite("tests.contracts.adapter", "tests.contracts.plugin_nonsense")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SHIELD_ variable of the machine reaches a test, except those that name brokers."""
    for name in list(os.environ):
        if name.startswith("SHIELD_") and not name.startswith("SHIELD_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a path another user's: root gives it away, anybody else is taken for another."""
    own = os.geteuid()

    def stranger(path: Path) -> None:
        if own == 0:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: own + 1)

    return stranger
