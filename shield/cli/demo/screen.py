"""Draws the demo: the rules, the producers as they go, and the proof at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Column, Table
from rich.text import Text

from shield.accounts import End, Ledger
from shield.cli.demo.gauge import CELLS, Gauge, Reading
from shield.cli.demo.observer import told
from shield.cli.demo.report import Report, ReportLine
from shield.cli.demo.script import Part, Script

WIDTH = 80
COUNTS = ("\noffered", "\nadmitted", "over\nlimit")


def opening(title: str, script: Script, seconds: float) -> RenderableType:
    """Return what is shown before the producers start."""
    head = Text.assemble(
        ("Shield", "bold"),
        f" holds {len(script.parts)} producers to their limits on {title}, for {seconds:g} s.",
    )
    toml = Syntax(script.rules.rstrip(), "toml", theme="ansi_dark", background_color="default")
    return Group(head, Padding(toml, (1, 0, 1, 2)))


def frame(script: Script, report: Report) -> RenderableType:
    """Return the screen while producers send."""
    return _state(script, report, "now", attrgetter("now"), lambda _line: Text())


def closing(script: Script, report: Report, next_steps: Mapping[str, str]) -> RenderableType:
    """Return the screen at the end."""
    state = _state(script, report, "at its highest", attrgetter("peak"), _mark)
    return Group(state, "", *_verdict(report), "", _next(next_steps))


def became(report: Report, part: Part) -> list[str]:
    """Return what became of a producer's messages that were over the limit, in words."""
    return [f"{number:,} {end}" for end, number in report.became(part).items() if number]


def bar(value: int, gauge: Gauge) -> Text:
    """Return a bar with a mark where the limit is: green before it, red behind it."""
    filled = min(round(value * gauge.mark / gauge.limit), CELLS)
    within, beyond = min(filled, gauge.mark), max(filled - gauge.mark, 0)
    return Text.assemble(
        ("█" * within, "green"), " " * (gauge.mark - within), ("│", "dim"), ("█" * beyond, "red")
    )


def _state(
    script: Script,
    report: Report,
    when: str,
    value: Callable[[Reading], int],
    mark: Callable[[ReportLine], Text],
) -> RenderableType:
    producers = _table(
        1,
        Column("\nproducer", width=16),
        Column(f"{when}\nagainst limit", width=CELLS + 1),
        *(Column(name, justify="right", min_width=6) for name in COUNTS),
        Column("\nof which", justify="right", min_width=16),
    )
    for part in script.parts:
        producers.add_row(*_row(report, part, value(report.readings[part.name])))
    says, holds = (Column(f"the {who}", justify="right") for who in ("ledger says", "broker holds"))
    proof = _table(3, "destination", says, holds, "")
    for line in report.lines:
        ledger = f"{line.end} {line.ledger:>8,}"
        proof.add_row(line.destination, ledger, f"{line.broker:,}", mark(line))
    shedding = [Text(line, "magenta") for line in told(report.shedding, report.elapsed_s)]
    happened: list[RenderableType] = ["", *shedding] if shedding else []
    return Group(producers, *happened, "", _sum(report.ledger), "", proof)


def _table(gap: int, *columns: Column | str, **options: Any) -> Table:
    padding = (0, gap, 0, 0)
    return Table(*columns, box=None, pad_edge=False, padding=padding, header_style="dim", **options)


def _row(report: Report, part: Part, value: int) -> tuple[RenderableType, ...]:
    offered, over_limit = report.of(part).offered, report.of(part).over_limit.total()
    counts = ((offered, "bold"), (offered - over_limit, "green"), (over_limit, "red"))
    return (
        Text.assemble((part.name, "bold"), "\n", (part.does, "dim")),
        Text.assemble(bar(value, part.gauge), "\n", (part.gauge.text(value), "dim")),
        *(Text(f"{number:,}", style if number else "dim") for number, style in counts),
        Text("\n".join(became(report, part)), "yellow"),
    )


def _sum(ledger: Ledger) -> Text:
    """Return the ledger's identity, with the ends that occurred."""
    ends = {str(end): getattr(ledger, end) for end in End}
    parts = [f"{number:,} {name}" for name, number in ends.items() if number]
    parts.append(f"{ledger.in_flight:,} in flight")
    return Text.assemble((f"{ledger.offered:,} offered", "bold"), " = ", " + ".join(parts))


def _mark(line: ReportLine) -> Text:
    if line.equal:
        return Text("✓ equal", "green")
    return Text(f"✗ differ by {abs(line.ledger - line.broker):,}", "bold red")


def _verdict(report: Report) -> list[Text]:
    if report.proven:
        text = "✓ Every message is accounted for: ledger and broker agree to the last one."
        return [Text(text, "bold green")]
    differ = [] if report.equal else ["ledger and broker differ"]
    open_ = [] if report.balanced else ["the ledger does not balance: a message has no end"]
    return [Text(f"✗ {problem}", "bold red") for problem in (*report.errors, *differ, *open_)]


def _next(steps: Mapping[str, str]) -> Table:
    table = _table(1, Column(style="dim"), Column(style="bold cyan"), "", show_header=False)
    last = {"shield config check": "with such rules in shield.toml"}
    for number, (step, does) in enumerate({**steps, **last}.items()):
        table.add_row("" if number else "next", step, does)
    return table
