"""Nobody reads another object's private names; a client's own stand in one file of its adapter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "adapters").rglob("*.py")) + sorted((ROOT / "shield/clients").rglob("*.py"))
PUBLIC_ALL_THE_SAME = {"_replace", "_fields", "_asdict", "_make"}
"""Those of a NamedTuple, whose names begin so that they are no field's."""


def defined_in(tree: ast.Module) -> set[str]:
    """Return the names that a module's own classes and functions have, and give to `self`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
            found |= {node.attr} if isinstance(node.ctx, ast.Store) else set()
    return found


def reads_of_others(source: str) -> list[str]:
    """Return the private names that a module reads of objects that are not of its own classes."""
    tree = ast.parse(source)
    known = defined_in(tree) | PUBLIC_ALL_THE_SAME
    return sorted(
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        if node.attr.startswith("_") and not node.attr.endswith("__") and node.attr not in known
        if ast.unparse(node.value) not in ("self", "cls", "super()")
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_are_their_own_modules(path):
    """But those of the client, in `client/internals.py`."""
    found = reads_of_others(path.read_text())
    if path.name == "internals.py":
        assert len(found) > 20
    else:
        assert found == []


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("def f(producer):\n    return producer._sender", ["producer._sender"]),
        ("class A:\n    def f(self):\n        return self.b._c", ["self.b._c"]),
        ("def f(one):\n    one._x = 1", ["one._x"]),
        ("class A:\n    _x = 1\n    def f(self, other):\n        return other._x + self._y", []),
    ],
)
def test_a_planted_one_is_named(planted, found):
    """One object of a class may know another of the same."""
    assert reads_of_others(planted) == found
