"""The architecture page cannot lie: its picture is drawn from the code, and its links are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import draw_architecture
from docs.draw_architecture import PICTURE, below, direct, imports, packages, picture, rows

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def group(*names):
    return frozenset(names)


def test_the_picture_is_what_the_imports_say_now():
    """`python docs/draw_architecture.py` has been run since they changed."""
    assert PICTURE.read_text() == picture()


def test_an_import_that_is_new_shows(monkeypatch):
    """An arrow up from the algorithms closes a circle, which the picture names."""
    before = picture()
    monkeypatch.setattr(
        draw_architecture,
        "imports",
        lambda module: (
            imports(module) | ({"shield.cli.app"} if module == "shield.algorithms.gcra" else set())
        ),
    )
    assert "a circle" in picture()
    assert picture() != before


def test_a_name_that_a_package_only_gathers_leads_to_where_it_is_defined():
    """`from shield import Rule` is an arrow to the contracts, not to all of Shield."""
    assert "shield.policy" in imports("shield.plugins.policies.max_age")
    assert "shield" not in packages()["plugins"]


def test_longer_ways_hide_shorter_ones():
    """Rows stand over what they import; an arrow that another way implies is left out."""
    under = below({"top": {"middle", "low"}, "middle": {"low"}, "low": set()})
    assert rows(under) == [[group("top")], [group("middle")], [group("low")]]
    assert direct(under, group("top")) == [group("middle")]


def test_packages_in_a_circle_are_one_group():
    """None of them can be said to stand above another."""
    under = below({"a": {"b"}, "b": {"c"}, "c": {"b"}})
    assert rows(under) == [[group("a")], [group("b", "c")]]


def test_the_page_names_every_package():
    """A reader finds each folder of shield/ that has code, and each adapter."""
    page = PAGE.read_text()
    folders = {path.parent for path in ROOT.glob("shield/*/__init__.py")}
    folders |= {path.parent for path in ROOT.glob("adapters/*/__init__.py")}
    assert [folder.name for folder in folders if f"{folder.name}/" not in page] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    """To a file that is there, relative to the page."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    here = [target for target in targets if "://" not in target]
    assert [target for target in here if not (path.parent / target).exists()] == []
