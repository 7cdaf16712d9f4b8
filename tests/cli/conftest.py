from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shield.cli import app

Run = Callable[..., "object"]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside: an empty directory, no SHIELD_ variables."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("SHIELD_"):
            monkeypatch.delenv(name)


@pytest.fixture
def run() -> Run:
    """Run `shield` with these arguments in this process."""

    def run(*arguments: str) -> object:
        return CliRunner().invoke(app, arguments, prog_name="shield")

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a settings file; return its name."""

    def write(text: str, name: str = "shield.toml") -> str:
        (tmp_path / name).write_text(text)
        return name

    return write
