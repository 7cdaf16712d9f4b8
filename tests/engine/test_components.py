"""The engine's parts: each does its work over the core, and knows no other."""

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
PARTS = sorted(Component.__subclasses__(), key=lambda part: part.__name__)


def named_module(path):
    parts = path.relative_to(FOLDER.parent.parent).with_suffix("").parts
    return ".".join(parts)


def named(part):
    return part.__name__


def own(part):
    return {name for name in vars(part) if not name.startswith("__")}


def entry_points(part):
    return {name for name in own(part) if not name.startswith("_")}


def test_every_file_is_a_part_of_the_engine_or_shared_by_them():
    """None is left out, and nothing else is in it."""
    modules = {named_module(path) for path in FILES} - {"shield.engine.engine"}
    assert modules - SHARED == {part.__module__ for part in PARTS}
    assert len(PARTS) == 10


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if named_module(p) not in {*SHARED, "shield.engine.engine"}],
    ids=lambda path: path.stem,
)
def test_no_part_imports_another(path):
    """What two of them need is in the core, or in the evaluator."""
    nodes = ast.walk(ast.parse(path.read_text()))
    imported = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("shield.engine")} <= SHARED


@pytest.mark.parametrize(("one", "other"), list(combinations(PARTS, 2)), ids=named)
def test_no_two_parts_have_a_name_in_common(one, other):
    """So an entry point says which part it is of."""
    assert not own(one) & own(other)


@pytest.mark.parametrize("part", PARTS, ids=named)
def test_a_part_asks_of_itself_only_what_is_its_own(part):
    """It would work as well without the others."""
    nodes = ast.walk(ast.parse(inspect.getsource(part)))
    asked = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
    }
    assert asked <= own(part) | {"_core"}


@pytest.mark.parametrize("part", PARTS, ids=named)
def test_each_entry_point_is_the_parts_own_method_and_has_its_docstring(part):
    """Bound once, so that a message pays for no call that only hands it on."""
    engine = Shield().engine
    assert importlib.import_module(part.__module__).__doc__
    for name in entry_points(part):
        assert inspect.getdoc(getattr(part, name))
        method = vars(part)[name]
        bound = getattr(engine, name)
        if not isinstance(method, property):
            assert bound.__func__ is method
            assert bound.__self__._core is engine._core


def test_what_users_need_of_a_shield_is_a_dozen_names():
    """All else is its engine's."""
    names = {name for name in dir(Shield()) if not name.startswith("_")}
    assert names == {
        *("load", "admit", "ledger", "status", "pressure", "ready", "wait_ready"),
        *("plugin_errors", "rules", "settings", "clock", "registry", "engine"),
    }


def test_an_engine_that_begins_anew_keeps_its_entry_points():
    """The core is reset in place: who holds one, as an adapter does, has that of the child."""
    whole = Shield({"rules": [{"match": "*", "quota": {"rate": "1/h", "burst": 1}}]})
    admit, core = whole.admit, whole.engine._core
    message = shield.Message("orders", 1, "p")
    assert isinstance(admit(message), shield.Permit)
    whole.engine.begin_anew()
    assert whole.engine._core is core
    assert whole.admit == admit
    assert whole.ledger().offered == 0
    assert isinstance(admit(message), shield.OverLimit)  # quota levels are carried over
    assert whole.ledger().offered == 1


def test_a_part_can_be_made_alone():
    """Over a core: here one that counts, and one that looks."""
    whole = Shield({"rules": [{"match": "*", "quota": {"rate": "1/h", "burst": 1}}]})
    core = Core(whole.engine, whole.engine._hooks)
    core.reset()
    admission, inspection = Admission(core), Inspection(core)
    message = shield.Message("orders", 1, "p")
    assert isinstance(admission.admit(message), shield.Permit)
    assert isinstance(admission.admit(message), shield.OverLimit)
    assert (inspection.ledger().offered, inspection.pressure()) == (2, 1.0)
    assert whole.ledger().offered == 0
