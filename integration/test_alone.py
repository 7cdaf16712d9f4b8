"""Tests that are marked `alone`: nothing runs beside one, and none of the others waits for long."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from integration.alone import last, turn_of
from tests.eventually import eventually


class Case:
    """What pytest says of a test."""

    def __init__(self, *marks: str, path: str = "test_x.py") -> None:
        self._marks = marks
        self.path = Path(path)

    def get_closest_marker(self, name: str) -> Any:
        return name if name in self._marks else None


class Running:
    """A test of another process, from its turn until it is told to end."""

    def __init__(self, test: Case, folder: Path) -> None:
        self._test, self._folder = test, folder
        self._may_end = threading.Event()
        self.runs = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with turn_of(self._test, self._folder):
            self.runs = True
            self._may_end.wait()

    def end(self) -> None:
        self._may_end.set()
        self._thread.join()


@pytest.mark.parametrize("marks", [("alone",), ()], ids=["alone", "not"])
def test_nothing_runs_beside_one_that_is_alone(marks: tuple[str, ...], tmp_path: Path) -> None:
    """Neither another of them nor any other; it begins when that one has ended."""
    first = Running(Case("alone"), tmp_path)
    eventually(lambda: first.runs)
    second = Running(Case(*marks), tmp_path)
    second._thread.join(0.2)
    assert not second.runs
    first.end()
    eventually(lambda: second.runs)
    second.end()


def test_others_run_beside_one_another_and_one_that_is_alone_after_them(tmp_path: Path) -> None:
    """It waits for all of them."""
    others = [Running(Case(), tmp_path) for _ in range(2)]
    eventually(lambda: all(other.runs for other in others))
    alone = Running(Case("alone"), tmp_path)
    others[0].end()
    alone._thread.join(0.2)
    assert not alone.runs
    others[1].end()
    eventually(lambda: alone.runs)
    alone.end()


def test_files_that_have_some_come_last_and_stay_together() -> None:
    """Each in its own order, as a file's tests share a broker."""
    tests = [
        Case(path="test_a.py"),
        Case("alone", path="test_a.py"),
        Case(path="test_b.py"),
        Case(path="test_a.py"),
    ]
    expected = [tests[2], tests[0], tests[1], tests[3]]
    last(tests)
    assert tests == expected
