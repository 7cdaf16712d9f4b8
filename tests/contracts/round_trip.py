"""What is set aside comes back equal to what the bare client would have sent.

Every way out, times every way back, times a collection of difficult messages. A client's suite
says how its messages are sent, bare and under rules, and how its broker is read by a reader that
knows nothing of Shield; what is compared, and when it must be there, is here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pytest

import shield

WITHIN_S = 30.0
ONE_AT_A_TIME = {"rate": "20/s", "burst": 1}
"""Refuses all that comes at once but the first, and lets what was kept go out soon."""


def back_by_itself(source: str, settings: Path, to: str) -> None:
    """Nothing: the rule says `redrive = "auto"`, or what was kept goes out as it is admitted."""


def back_by_command(source: str, settings: Path, to: str) -> None:
    """`shield redrive` in a process of its own."""
    command = [sys.executable, "-m", "shield", "--config", str(settings), "redrive", source]
    done = subprocess.run(
        [*command, "--to", to, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["complete"], done.stdout


def back_by_function(source: str, settings: Path, to: str) -> None:
    """`shield.redrive` in this process."""
    redriven = shield.redrive(source, to=to, shield=shield.Shield.load(settings))
    assert redriven.complete, redriven


WAYS_BACK: dict[str, Callable[[str, Path, str], None]] = {
    "by itself": back_by_itself,
    "by the command": back_by_command,
    "by the function": back_by_function,
}


class RoundTripContract(ABC):
    """Inherit it, and say how a client sends and what its broker holds."""

    ways_out: ClassVar[Mapping[str, str]]
    """Actions by a name: `{place}` stands for a fresh place, which `place` makes."""
    ways_back: ClassVar[Sequence[str]] = tuple(WAYS_BACK)
    copies: ClassVar[int] = 1
    """How many of each are there at the end: two where consumers set aside what stays there."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each way out with each way back; what is kept in the client comes back by itself."""
        if {"out", "back"} <= set(metafunc.fixturenames):
            ways = [
                (out, back)
                for out, action in self.ways_out.items()
                for back in self.ways_back
                if "{place}" in action or back == "by itself"
            ]
            metafunc.parametrize(("out", "back"), ways, ids=[" ".join(way) for way in ways])

    @abstractmethod
    def place(self, out: str, folder: Path) -> tuple[str, str, str]:
        """Make a place for what goes this way out.

        Returns its name in a chain, its URL, and what `redrive --to` says for it to come back.
        """

    @abstractmethod
    def messages(self) -> Mapping[str, Any]:
        """Return the difficult messages by their names."""

    @abstractmethod
    def fresh(self, name: str) -> str:
        """Make a destination of that message's own; all match `match`."""

    @property
    @abstractmethod
    def match(self) -> str:
        """The glob that covers all fresh destinations, and no place."""

    @abstractmethod
    def send_bare(self, name: str, destination: str) -> None:
        """Send a message with the bare client."""

    @abstractmethod
    def sending(self, rules: shield.Shield) -> AbstractContextManager[Callable[[str, str], Any]]:
        """Have the client under rules, open until what it has sent aside is there.

        What it gives sends a message to its destination.
        """

    @abstractmethod
    def read(self, destination: str, name: str) -> list[Any]:
        """Return what is there of a message, in a form that can be compared."""

    def rule(self, out: str, place: str, *, auto: bool) -> dict[str, Any]:
        """Return the rule that sets aside all but the first."""
        action = self.ways_out[out].format(place=place)
        back = {"redrive": "auto"} if auto else {}
        return {
            "name": "orders",
            "match": self.match,
            "quota": ONE_AT_A_TIME,
            "over_limit": [action],
        } | back

    def test_it_comes_back_as_it_was(self, out: str, back: str, tmp_path: Path) -> None:
        """Key, body, headers, place and time: as the bare client puts them there, and once."""
        place, source, to = self.place(out, tmp_path)
        auto = back == "by itself" and "{place}" in self.ways_out[out]
        rules = shield.Shield(
            {
                "shield": {"spool_dir": str(tmp_path), "producer": "round-trip"},
                "rules": [self.rule(out, place, auto=auto)],
            }
        )
        settings = tmp_path / "shield.toml"
        settings.write_text(f'[[rules]]\nmatch = "{self.match}"\nin_flight.messages = 1000\n')
        expected = self._expected()
        destinations = {name: self.fresh(name) for name in expected}
        first = next(iter(expected))
        with self.sending(rules) as send:
            send(first, destinations[first])
            for name, destination in destinations.items():
                send(name, destination)
            if back == "by itself":
                self._wait(expected, destinations)
        WAYS_BACK[back](source, settings, to)
        self._wait(expected, destinations)
        assert rules.ledger().balanced

    _known: ClassVar[dict[type, dict[str, list[Any]]]] = {}

    def _expected(self) -> dict[str, list[Any]]:
        """Return what the bare client puts there; sent once for each class of tests."""
        known = self._known.get(type(self))
        if known is None:
            known = self._known[type(self)] = {}
            for name in self.messages():
                destination = self.fresh(name)
                self.send_bare(name, destination)
                known[name] = self.read(destination, name)
                assert len(known[name]) == 1, name
        return known

    def _wait(self, expected: Mapping[str, list[Any]], destinations: Mapping[str, str]) -> None:
        """Return when all are there; the first was sent twice, to use the quota up."""
        first = next(iter(expected))
        wanted = {n: whole * (1 + (n == first)) * self.copies for n, whole in expected.items()}
        give_up = time.monotonic() + WITHIN_S
        while True:
            found = {name: self.read(there, name) for name, there in destinations.items()}
            if all(len(found[name]) >= len(whole) for name, whole in wanted.items()):
                break
            if time.monotonic() > give_up:
                break
            time.sleep(0.2)
        wrong = {n: (found[n], whole) for n, whole in wanted.items() if found[n] != whole}
        assert not wrong, "\n".join(f"{n}: {str(both)[:600]}" for n, both in wrong.items())
