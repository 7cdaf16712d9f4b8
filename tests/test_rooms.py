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
from shield.rooms.admission import Admission
from shield.rooms.core import Core, Room
from shield.rooms.overview import Overview

FOLDER = Path(shield.__file__).parent / "rooms"
SHARED = {f"shield.rooms.{name}" for name in ("claims", "core", "flows", "judge")}
ROOMS = [base for base in Shield.__bases__ if issubclass(base, Room)]


def named(room):
    return room.__name__


def own(room):
    return {name for name in vars(room) if not name.startswith("__")}


def test_every_file_is_a_room_of_the_shield_or_shared_by_them():
    """None is left out, and nothing else is in it."""
    modules = {f"shield.rooms.{path.stem}" for path in FOLDER.glob("[a-z]*.py")}
    assert modules - SHARED == {room.__module__ for room in ROOMS}
    assert set(Shield.__bases__) == set(ROOMS)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_no_room_imports_another(path):
    """What two of them need is in the core, or in the judge."""
    nodes = ast.walk(ast.parse(path.read_text()))
    imported = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("shield.rooms")} <= SHARED


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
    assert [name for name in vars(Shield) if not name.startswith("_")] == ["load"]
    for room in ROOMS:
        assert importlib.import_module(room.__module__).__doc__
        assert all(inspect.getdoc(getattr(room, name)) for name in own(room) if name[0] != "_")


def test_a_room_can_be_made_alone():
    """Over a core: here one that counts, and one that looks."""
    whole = Shield({"rules": [{"match": "*", "quota": {"rate": "1/h", "burst": 1}}]})
    core = Core(whole, whole._hooks)
    admission, overview = Admission(core), Overview(core)
    message = shield.Message("orders", 1, "p")
    assert isinstance(admission.admit(message), shield.Permit)
    assert isinstance(admission.admit(message), shield.OverLimit)
    assert (overview.ledger().offered, overview.pressure(), whole.ledger().offered) == (2, 1.0, 0)
