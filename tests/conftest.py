from __future__ import annotations

import os

import hypothesis
import pytest

# CI repeats the same examples, so that it fails for a change and not for luck; others explore.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

pytest.register_assert_rewrite("tests.contracts.adapter", "shield.testing")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SHIELD_ variable of the machine reaches a test, except those that name brokers."""
    for name in list(os.environ):
        if name.startswith("SHIELD_") and not name.startswith("SHIELD_TEST_"):
            monkeypatch.delenv(name)
