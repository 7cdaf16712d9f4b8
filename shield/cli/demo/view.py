"""Where a run is shown: drawn anew on a terminal, else as lines for pipes and logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from shield.cli.demo import screen
from shield.cli.demo.observer import told
from shield.cli.demo.report import Report
from shield.cli.demo.script import Part, Script

EVERY_S = 1.0
HEAD = "time   producer            now of limit  offered  admitted  over limit"


@contextmanager
def view(console: Console, script: Script) -> Iterator[Callable[[Report], None]]:
    """Yield what shows each report; what a terminal was drawn is gone at the end."""
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda report: live.update(screen.frame(script, report), refresh=True)
    else:
        console.print(HEAD, soft_wrap=True)
        yield _Lines(console, script).show
        console.print()


class _Lines:
    """Prints what shedding did, and once a second a line for each producer."""

    def __init__(self, console: Console, script: Script) -> None:
        self._console, self._parts = console, script.parts
        self._next_s, self._told = EVERY_S, 0

    def show(self, report: Report) -> None:
        happened = list(told(report.shedding, report.elapsed_s))
        lines = happened[self._told :]
        self._told = len(happened)
        if report.elapsed_s >= self._next_s:
            self._next_s = report.elapsed_s + EVERY_S
            lines += [_line(part, report) for part in self._parts]
        for line in lines:
            self._console.print(line, soft_wrap=True)


def _line(part: Part, report: Report) -> str:
    ledger, now = report.of(part), report.readings[part.name].now
    over_limit = ledger.over_limit.total()
    return (
        f"{report.elapsed_s:>4.1f}s  {part.name:<8} {part.gauge.text(now):>21}  "
        f"{ledger.offered:>7}  {ledger.offered - over_limit:>8}  {over_limit:>10}  "
        f"{', '.join(screen.became(report, part))}"
    ).rstrip()
