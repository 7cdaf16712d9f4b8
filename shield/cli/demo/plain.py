"""The demo where standard output is no terminal: a line for each producer once a second."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from shield.cli.demo import screen
from shield.cli.demo.report import Report, ReportLine
from shield.cli.demo.run import Snapshot
from shield.cli.demo.script import Part, Script
from shield.cli.demo.shedding import told
from shield.cli.demo.view import DemoView

EVERY_S = 1.0
HEAD = "time   producer            now of limit  offered  admitted  over limit"


class PlainView(DemoView):
    """Prints lines that never change, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = EVERY_S
        self._told = 0

    def open(self, title: str, script: Script, seconds: float) -> None:
        """Print the rules and the heads of the columns."""
        self._parts = script.parts
        self._console.print(screen.opening(title, script, seconds))
        self._console.print(HEAD, soft_wrap=True)

    def show(self, snapshot: Snapshot, lines: tuple[ReportLine, ...]) -> None:
        """Print what shedding did, and all producers where a second has passed since the last."""
        happened = list(told(snapshot.shedding, snapshot.elapsed_s))
        for line in happened[self._told :]:
            self._console.print(line, soft_wrap=True)
        self._told = len(happened)
        if snapshot.elapsed_s >= self._next_s:
            self._next_s = snapshot.elapsed_s + EVERY_S
            self._console.print("\n".join(_rows(self._parts, snapshot)), soft_wrap=True)

    def close(self, report: Report) -> None:
        """Print the tables."""
        self._console.print()
        self._console.print(screen.closing(report))


def _rows(parts: tuple[Part, ...], snapshot: Snapshot) -> Iterator[str]:
    for part in parts:
        ledger, now = snapshot.of(part), snapshot.readings[part.name].now
        over_limit = ledger.over_limit.total()
        became = ", ".join(screen.became(snapshot, part))
        yield (
            f"{snapshot.elapsed_s:>4.1f}s  {part.name:<8} {part.gauge.text(now):>21}  "
            f"{ledger.offered:>7}  {ledger.offered - over_limit:>8}  {over_limit:>10}  {became}"
        ).rstrip()
