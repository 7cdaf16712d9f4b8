"""Draws the demo: the rules, the producers as they go, and the proof at the end."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from shield.cli.demo_report import Line, Report
from shield.cli.demo_run import Snapshot
from shield.cli.demo_script import PARTS, QUOTA, Part
from shield.ledger import End, Ledger

WIDTH = 80
PER_CELL = QUOTA // 4
"""Messages a second that one cell of a bar stands for."""
CELLS = 20


def opening(title: str, rules: str, seconds: float) -> RenderableType:
    """Return what is shown before the producers start."""
    head = Text.assemble(
        ("Shield", "bold"), f" holds four producers to their quotas on {title}, for {seconds:g} s."
    )
    toml = Syntax(rules.rstrip(), "toml", theme="ansi_dark", background_color="default")
    return Group(head, Padding(toml, (1, 0, 1, 2)))


def frame(snapshot: Snapshot, lines: tuple[Line, ...]) -> RenderableType:
    """Return the screen while producers send."""
    return Group(
        _producers(snapshot, "rate now"), "", _sum(snapshot.ledger), "", _proof(lines, _no_mark)
    )


def closing(report: Report) -> RenderableType:
    """Return the screen at the end."""
    return Group(
        _producers(report.last, "highest rate"),
        "",
        _sum(report.last.ledger),
        "",
        _proof(report.lines, _mark),
        "",
        *_verdict(report),
        "",
        _next(report.demo.drop_in),
    )


# --- producers ----------------------------------------------------------------------------------


def _producers(snapshot: Snapshot, rate: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("\nproducer", width=16)
    table.add_column(f"{rate}\nagainst quota", width=CELLS + 1)
    for name in ("\noffered", "\nadmitted", "over\nlimit", "\noverflowed", "\nwaited"):
        table.add_column(name, justify="right", min_width=6)
    for part in PARTS:
        pace = snapshot.paces[part.name]
        table.add_row(*_row(snapshot, part, pace.peak if rate == "highest rate" else pace.now))
    return table


def _row(snapshot: Snapshot, part: Part, rate: int) -> tuple[RenderableType, ...]:
    ledger = snapshot.of(part)
    over_limit = ledger.over_limit.total()
    return (
        Text.assemble((part.name, "bold"), "\n", (part.does, "dim")),
        Text.assemble(bar(rate), "\n", (f"{rate:,}/s of {QUOTA}/s", "dim")),
        _number(ledger.offered, "bold"),
        _number(ledger.offered - over_limit, "green"),
        _number(over_limit, "red"),
        _number(ledger.overflowed, "yellow"),
        _number(snapshot.waited[part.name], "cyan"),
    )


def bar(rate: int) -> Text:
    """Return a bar for a rate, with a mark where the quota is: green before it, red behind it."""
    filled, quota = min(round(rate / PER_CELL), CELLS), QUOTA // PER_CELL
    within, beyond = min(filled, quota), max(filled - quota, 0)
    return Text.assemble(
        ("█" * within, "green"), " " * (quota - within), ("│", "dim"), ("█" * beyond, "red")
    )


def _number(number: int, style: str) -> Text:
    return Text(f"{number:,}", style if number else "dim")


# --- ledger and broker --------------------------------------------------------------------------


def _sum(ledger: Ledger) -> Text:
    """Return the ledger's identity, with the ends that occurred."""
    ends = {str(end): getattr(ledger, end) for end in End}
    parts = [f"{number:,} {name}" for name, number in ends.items() if number]
    parts.append(f"{ledger.in_flight:,} in flight")
    return Text.assemble((f"{ledger.offered:,} offered", "bold"), " = ", " + ".join(parts))


def _proof(lines: tuple[Line, ...], mark: Callable[[Line], Text]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("destination")
    table.add_column("the ledger says", justify="right")
    table.add_column("the broker holds", justify="right")
    table.add_column("")
    for line in lines:
        ledger = f"{line.end} {line.ledger:>8,}"
        table.add_row(line.destination, ledger, f"{line.broker:,}", mark(line))
    return table


def _no_mark(_line: Line) -> Text:
    return Text()


def _mark(line: Line) -> Text:
    if line.equal:
        return Text("✓ equal", "green")
    return Text(f"✗ differ by {abs(line.ledger - line.broker):,}", "bold red")


def _verdict(report: Report) -> list[Text]:
    if report.proven:
        text = "✓ Every message is accounted for: ledger and broker agree to the last one."
        return [Text(text, "bold green")]
    problems = list(report.errors)
    if not report.equal:
        problems.append("ledger and broker differ")
    if not report.balanced:
        problems.append("the ledger does not balance: a message has no end")
    return [Text(f"✗ {problem}", "bold red") for problem in problems]


def _next(drop_in: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(style="dim")
    table.add_column(style="bold cyan")
    table.add_row("next", "shield demo --bootstrap HOST:PORT", "the same on a real broker")
    table.add_row("", drop_in, "the one line to change")
    table.add_row("", "shield config check", "with rules like these in shield.toml")
    return table
