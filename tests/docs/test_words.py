"""Prose says what is done, to what and by whom: no phrase that leaves it to be guessed."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
VAGUE = re.compile(
    r"\b(?:let|lets|letting) go (?:of|on)\b|\b(?:see|sees|seeing|seen) to\b|\bthere is anybody\b"
    r"|\bis its own, and needs\b|\bin the hands of\b",
    re.IGNORECASE,
)
"""Instead: close, release, drop; handle, settle; where a session is open; confined to a thread."""


def test_no_prose_is_vague_about_what_is_done():
    """In code, in its docstrings, and on the pages."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    files += [path for folder in ("shield", "adapters") for path in (ROOT / folder).rglob("*.py")]
    found = {
        f"{path.relative_to(ROOT)}: {phrase.group()}"
        for path in files
        if path.name != "CHANGELOG.md"
        for phrase in VAGUE.finditer(" ".join(path.read_text(encoding="utf-8").split()))
    }
    assert sorted(found) == []
