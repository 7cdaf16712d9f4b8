"""The order of packages: each imports only what stands below it, also where that is for types."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = (
    ("algorithms",),
    ("contracts",),
    ("clients",),
    ("chain", "config"),
    ("redriving",),
    ("engine",),
    ("shield.py",),
    ("operations",),
    ("cli", "testing", "plugins", "adapters"),
)
"""From the bottom up. `contracts` are the files at the top of `shield/`, `shield.py` is above."""
LEVELS = {package: level for level, packages in enumerate(ORDER) for package in packages}


def modules(*folders: str) -> dict[str, Path]:
    """Return the files of those folders by the names that they are imported by."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            parts = parts[1:] if parts[0] == "adapters" else parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def package_of(module: str) -> str | None:
    """Return where a module stands in the order; None for the list of public names."""
    first, *rest = module.split(".")
    if first != "shield":
        return "adapters"
    if not rest:
        return None
    if rest[0] in LEVELS:
        return rest[0]
    return {"shield": "shield.py", "__main__": "cli"}.get(rest[0], "contracts")


def arrows(module: str, source: str, known: set[str]) -> set[tuple[str, str]]:
    """Return what a module imports, wherever it does: under TYPE_CHECKING, in functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in named]
        else:
            continue
        found |= {(module, name) for name in names if name in known and name != module}
    return found


def upward(those: set[tuple[str, str]]) -> list[str]:
    """Return the arrows that point up, each with its packages."""
    return sorted(
        f"{source} ({own}) -> {target} ({other})"
        for source, target in those
        if (own := package_of(source)) and (other := package_of(target))
        if LEVELS[other] > LEVELS[own] or (own != other and LEVELS[other] == LEVELS[own])
        if (own, other) not in ALLOWED
    )


ALLOWED = {("adapters", "testing"), ("adapters", "cli"), ("plugins", "cli")}
"""Beside each other, and one way only."""


@pytest.fixture(scope="module")
def known() -> dict[str, Path]:
    return modules("shield", "adapters")


def test_no_import_points_up(known):
    """Every one of them, at run time or for types alone."""
    names = set(known)
    every = set().union(*(arrows(name, path.read_text(), names) for name, path in known.items()))
    assert len(every) > 500
    assert upward(every) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from shield.engine.core import Core",
        "if TYPE_CHECKING:\n    from shield.shield import Shield",
        "def late():\n    import shield.plugins.policies.quota",
    ],
)
def test_a_planted_arrow_is_named(known, planted):
    """In a contract: at its top, for types alone, and inside a function."""
    source = known["shield.verdict"].read_text() + f"\n\n{planted}\n"
    found = upward(arrows("shield.verdict", source, set(known)))
    target = ast.unparse(ast.parse(planted)).split("shield.")[1].split(" ")[0]
    assert len(found) == 1
    assert found[0].startswith(f"shield.verdict (contracts) -> shield.{target} (")
