"""The Shield's parts: each does its work over the core, and knows no other."""

from __future__ import annotations

import ast
import importlib
import inspect
from itertools import combinations
from pathlib import Path

import pytest

import shield
from shield import Shield
from shield.engine.admission import Admission
from shield.engine.core import Component, Core
from shield.engine.reporting.inspection import Inspection

FOLDER = Path(shield.__file__).parent / "engine"
FILES = sorted(FOLDER.rglob("[a-z]*.py"))
SHARED = {
    f"shield.engine.{name}"
    for name in (
        *("answer_timeouts", "claims", "core", "evaluator", "hooks", "policy_set", "policy_sets"),
        *("process", "queueing.sojourn_monitor", "queueing.wait_queue", "reporting.readiness"),
        *("reporting.refusal_log", "reporting.retired", "reporting.signal_support", "spin_lock"),
    )
}
ROOMS = [base for base in Shield.__bases__ if issubclass(base, Component)]


def named_module(path):
    parts = path.relative_to(FOLDER.parent.parent).with_suffix("").parts
    return ".".join(parts)


def named(room):
    return room.__name__


def own(room):
    return {name for name in vars(room) if not name.startswith("__")}


def test_every_file_is_a_room_of_the_shield_or_shared_by_them():
    """None is left out, and nothing else is in it."""
    modules = {named_module(path) for path in FILES}
    assert modules - SHARED == {room.__module__ for room in ROOMS}
    assert set(Shield.__bases__) == set(ROOMS)


@pytest.mark.parametrize(
    "path", [p for p in FILES if named_module(p) not in SHARED], ids=lambda path: path.stem
)
def test_no_room_imports_another(path):
    """What two of them need is in the core, or in the judge."""
    nodes = ast.walk(ast.parse(path.read_text()))
    imported = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("shield.engine")} <= SHARED


@pytest.mark.parametrize(
    ("one", "other"), list(combinations(ROOMS, 2)), ids=lambda room: room.__name__
)
def test_no_two_rooms_have_a_name_in_common(one, other):
    """So none stands in for another's, and their order means nothing."""
    assert not own(one) & own(other)


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_a_room_asks_of_itself_only_what_is_its_own(room):
    """It would work as well without the others."""
    nodes = ast.walk(ast.parse(inspect.getsource(room)))
    asked = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
    }
    assert asked <= own(room) | {"_core"}


def test_what_a_shield_can_do_is_told_where_it_is_done():
    """The class adds no method to its rooms but how it is made, and each has its docstring."""
    assert [name for name in vars(Shield) if not name.startswith("_")] == ["load", "begin_anew"]
    for room in ROOMS:
        assert importlib.import_module(room.__module__).__doc__
        assert all(inspect.getdoc(getattr(room, name)) for name in own(room) if name[0] != "_")


def test_a_room_can_be_made_alone():
    """Over a core: here one that counts, and one that looks."""
    whole = Shield({"rules": [{"match": "*", "quota": {"rate": "1/h", "burst": 1}}]})
    core = Core(whole, whole._hooks)
    admission, overview = Admission(core), Inspection(core)
    message = shield.Message("orders", 1, "p")
    assert isinstance(admission.admit(message), shield.Permit)
    assert isinstance(admission.admit(message), shield.OverLimit)
    assert (overview.ledger().offered, overview.pressure(), whole.ledger().offered) == (2, 1.0, 0)
