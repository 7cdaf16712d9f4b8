"""What docs and docstrings name is there: modules, what is in them, and files."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOGGERS = {"shield.refusals"}
CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)
DOTTED = re.compile(r"`((?:shield|shield_kafka|shield_rabbitmq)(?:\.\w+)+)(?=[`(])")
FILE = re.compile(r"`((?:shield|adapters|tests|integration|docs|examples)/[\w/.]+)`")


def texts() -> dict[str, str]:
    """Return pages without their code blocks, which run, and the project's own code."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
    code = [path for folder in ("shield", "adapters") for path in (ROOT / folder).rglob("*.py")]
    return {
        str(path.relative_to(ROOT)): CODE_BLOCK.sub("", path.read_text(encoding="utf-8"))
        for path in (*pages, *code)
    }


def is_there(name: str) -> bool:
    """Tell whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:number]))
        except ImportError:
            continue
        for part in parts[number:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_names_in_backticks_lead_somewhere():
    """A module that has moved is named by its new name everywhere."""
    named = {(where, name) for where, text in texts().items() for name in DOTTED.findall(text)}
    assert len(named) > 20
    wrong = {
        (where, name)
        for where, name in named
        if name not in LOGGERS and not name.endswith(".toml") and not is_there(name)
    }
    assert sorted(wrong) == []


def test_files_in_backticks_are_there():
    """Relative to the project."""
    named = {(where, file) for where, text in texts().items() for file in FILE.findall(text)}
    assert len(named) > 5
    assert sorted((where, file) for where, file in named if not (ROOT / file).exists()) == []
