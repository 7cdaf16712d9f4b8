"""Draws the demo: the rules, the producers as they go, and the proof at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from shield.accounts import End, Ledger
from shield.cli.demo.meters import CELLS, Gauge
from shield.cli.demo.report import Report, ReportLine
from shield.cli.demo.run import Snapshot
from shield.cli.demo.script import Part, Script
from shield.cli.demo.shedding import told

WIDTH = 80
BECAME = ("overflowed", "dropped", "raised", "failed")


def opening(title: str, script: Script, seconds: float) -> RenderableType:
    """Return what is shown before the producers start."""
    head = Text.assemble(
        ("Shield", "bold"),
        f" holds {len(script.parts)} producers to their limits on {title}, for {seconds:g} s.",
    )
    toml = Syntax(script.rules.rstrip(), "toml", theme="ansi_dark", background_color="default")
    return Group(head, Padding(toml, (1, 0, 1, 2)))


def frame(script: Script, snapshot: Snapshot, lines: tuple[ReportLine, ...]) -> RenderableType:
    """Return the screen while producers send."""
    now = {name: reading.now for name, reading in snapshot.readings.items()}
    return Group(
        _producers(script, snapshot, "now", now),
        *_shedding(snapshot),
        "",
        _sum(snapshot.ledger),
        "",
        _proof(lines, _no_mark),
    )


def closing(report: Report) -> RenderableType:
    """Return the screen at the end."""
    last = report.last
    peaks = {name: reading.peak for name, reading in last.readings.items()}
    return Group(
        _producers(report.script, last, "at its highest", peaks),
        *_shedding(last),
        "",
        _sum(last.ledger),
        "",
        _proof(report.lines, _mark),
        "",
        *_verdict(report),
        "",
        _next(report.demo.next_steps),
    )


# --- producers ----------------------------------------------------------------------------------


def _producers(script: Script, snapshot: Snapshot, when: str, values: dict[str, int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("\nproducer", width=16)
    table.add_column(f"{when}\nagainst limit", width=CELLS + 1)
    for name in ("\noffered", "\nadmitted", "over\nlimit"):
        table.add_column(name, justify="right", min_width=6)
    table.add_column("\nof which", justify="right", min_width=16)
    for part in script.parts:
        table.add_row(*_row(snapshot, part, values[part.name]))
    return table


def _row(snapshot: Snapshot, part: Part, value: int) -> tuple[RenderableType, ...]:
    ledger, gauge = snapshot.of(part), part.gauge
    over_limit = ledger.over_limit.total()
    return (
        Text.assemble((part.name, "bold"), "\n", (part.does, "dim")),
        Text.assemble(bar(value, gauge), "\n", (gauge.text(value), "dim")),
        _number(ledger.offered, "bold"),
        _number(ledger.offered - over_limit, "green"),
        _number(over_limit, "red"),
        Text("\n".join(became(snapshot, part)), "yellow"),
    )


def became(snapshot: Snapshot, part: Part) -> list[str]:
    """Return what became of a producer's messages that were over the limit, in words."""
    ledger, waited = snapshot.of(part), snapshot.waited[part.name]
    counts = {"waited": waited, **{end: getattr(ledger, end) for end in BECAME}}
    return [f"{number:,} {end}" for end, number in counts.items() if number]


def bar(value: int, gauge: Gauge) -> Text:
    """Return a bar with a mark where the limit is: green before it, red behind it."""
    filled = min(round(value * gauge.mark / gauge.limit), CELLS)
    within, beyond = min(filled, gauge.mark), max(filled - gauge.mark, 0)
    return Text.assemble(
        ("█" * within, "green"), " " * (gauge.mark - within), ("│", "dim"), ("█" * beyond, "red")
    )


def _shedding(snapshot: Snapshot) -> list[RenderableType]:
    lines = [Text(line, "magenta") for line in told(snapshot.shedding, snapshot.elapsed_s)]
    return ["", *lines] if lines else []


def _number(number: int, style: str) -> Text:
    return Text(f"{number:,}", style if number else "dim")


# --- ledger and broker --------------------------------------------------------------------------


def _sum(ledger: Ledger) -> Text:
    """Return the ledger's identity, with the ends that occurred."""
    ends = {str(end): getattr(ledger, end) for end in End}
    parts = [f"{number:,} {name}" for name, number in ends.items() if number]
    parts.append(f"{ledger.in_flight:,} in flight")
    return Text.assemble((f"{ledger.offered:,} offered", "bold"), " = ", " + ".join(parts))


def _proof(lines: tuple[ReportLine, ...], mark: Callable[[ReportLine], Text]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("destination")
    table.add_column("the ledger says", justify="right")
    table.add_column("the broker holds", justify="right")
    table.add_column("")
    for line in lines:
        ledger = f"{line.end} {line.ledger:>8,}"
        table.add_row(line.destination, ledger, f"{line.broker:,}", mark(line))
    return table


def _no_mark(_line: ReportLine) -> Text:
    return Text()


def _mark(line: ReportLine) -> Text:
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


def _next(steps: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(style="dim")
    table.add_column(style="bold cyan")
    last = {"shield config check": "with such rules in shield.toml"}
    for number, (step, does) in enumerate({**steps, **last}.items()):
        table.add_row("" if number else "next", step, does)
    return table
