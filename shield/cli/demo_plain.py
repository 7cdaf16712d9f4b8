"""The demo where standard output is no terminal: a line for each producer once a second."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from shield.cli import demo_screen
from shield.cli.demo_report import Line, Report
from shield.cli.demo_run import Snapshot
from shield.cli.demo_script import PARTS, QUOTA
from shield.cli.demo_view import View

EVERY_S = 1.0
HEAD = "time   producer   rate  quota  offered  admitted  over limit  overflowed  waited"


class PlainView(View):
    """Prints lines that never change, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = EVERY_S

    def open(self, title: str, rules: str, seconds: float) -> None:
        """Print the rules and the heads of the columns."""
        self._console.print(demo_screen.opening(title, rules, seconds))
        self._console.print(HEAD, soft_wrap=True)

    def show(self, snapshot: Snapshot, lines: tuple[Line, ...]) -> None:
        """Print, where a second has passed since the last time."""
        if snapshot.elapsed_s >= self._next_s:
            self._next_s = snapshot.elapsed_s + EVERY_S
            self._console.print("\n".join(_rows(snapshot)), soft_wrap=True)

    def close(self, report: Report) -> None:
        """Print the tables."""
        self._console.print()
        self._console.print(demo_screen.closing(report))


def _rows(snapshot: Snapshot) -> Iterator[str]:
    for part in PARTS:
        ledger, rate = snapshot.of(part), snapshot.paces[part.name].now
        over_limit = ledger.over_limit.total()
        yield (
            f"{snapshot.elapsed_s:>4.1f}s  {part.name:<8} {rate:>5}  {QUOTA:>5}  "
            f"{ledger.offered:>7}  {ledger.offered - over_limit:>8}  {over_limit:>10}  "
            f"{ledger.overflowed:>10}  {snapshot.waited[part.name]:>6}"
        )
