"""`python -m benchmarks NAME`: one benchmark, or all, as tables or as JSON."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Effort, Report, Result
from integration.brokers import BrokerError
from shield import ShieldError

ALL = "all"
NAMES = (
    "decide",
    "instructions",
    "kafka_producer",
    "kafka_memory",
    "rabbitmq_publish",
    "rabbitmq_memory",
    "rabbitmq_consumer",
    "buffer",
    "spool",
    "redrive",
    "overload",
    "consumer",
)
Name = StrEnum("Name", [(name, name) for name in (*NAMES, ALL)])  # type: ignore[misc]

HELP = """\
Measure Shield beside the bare clients and its peers.

The sides take turns within one run, so read the ratios, not the absolute numbers; a difference
smaller than the noise printed below each table means nothing. Results go to standard output,
progress to standard error. The exit status is 0 also where a target is missed; it is 1 where a
benchmark could not be run, or a message was not accounted for.

\b
  decide          microseconds for one decision; no broker, under a minute
  instructions    processor instructions of one message; perf or valgrind, 10 minutes
  kafka_producer  send + flush, shielded against bare kafka-python; a real Kafka, 2-3 minutes
  kafka_memory    memory while the broker is frozen; a Kafka of its own, 2-3 minutes
  rabbitmq_publish  messages against pika's own ways and aio-pika's; a real RabbitMQ, 2-3 minutes
  rabbitmq_memory   memory during a memory alarm; a RabbitMQ of its own, 2-3 minutes
  rabbitmq_consumer  consuming, shielded against bare pika; a real RabbitMQ, 2-3 minutes
  buffer            1,000,000 messages in a buffer: memory and drain; a real Kafka, 5 minutes
  spool             onto the disk, and out of it into a real Kafka; 3-4 minutes
  redrive           a topic brought back, against a bare loop; a real Kafka, 10 minutes
  overload          a bounded consumer under ten times its load; both brokers, 25 minutes; draws
  consumer          poll and iteration, shielded against bare kafka-python; a real Kafka, 4 minutes
  all             all of them

\b
Kafka is the one that SHIELD_TEST_KAFKA=host:port names, RabbitMQ that of SHIELD_TEST_AMQP=amqp://...;
else they are started in Docker or natively.
The two about memory break their broker and so always start one.

\b
  python -m benchmarks decide
  python -m benchmarks kafka_producer --runs 15
  python -m benchmarks all --json > benchmarks.json
  python -m benchmarks all --quick           (does it work? its numbers mean little)
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=HELP, no_args_is_help=True)
def main(
    name: Annotated[Name, typer.Argument(metavar="NAME", help="Which one.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Runs of each side, instead of each one's own number.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few and short runs.")] = False,
) -> None:
    chosen = NAMES if name == ALL else (str(name),)
    try:
        reports = [_run(one, Effort(runs, quick), as_json) for one in chosen]
    except (BrokerError, ShieldError) as error:
        sys.exit(str(error))
    if as_json:
        found = [report.as_dict() for report in reports]
        json.dump(found if name == ALL else found[0], sys.stdout, indent=2)
        print()


def _run(name: str, effort: Effort, as_json: bool) -> Report:
    report: Report = import_module(f"benchmarks.{name}").run(effort)
    if not as_json:
        _print(report)
    return report


def _print(report: Report) -> None:
    console: Any = Console()
    table = Table(title=report.name, title_justify="left", title_style="bold")
    table.add_column("what")
    for column in ("median", "spread", "ratio", "target"):
        table.add_column(column, justify="right")
    for result in report.results:
        table.add_row(*_cells(result))
    console.print(table)
    console.print(f"ratio    {report.ratio:.3g} ({report.ratio_of})", highlight=False)
    console.print(f"target   {report.target}: {_word(report.reached)}", highlight=False)
    console.print(f"noise    {report.noise:.1%} (a fixed loop, between the runs)", highlight=False)
    for note in report.notes:
        console.print(f"note     {note}", highlight=False)
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    console.print(f"with     {versions}\n", highlight=False)


def _cells(result: Result) -> tuple[str, ...]:
    return (
        result.name,
        f"{_number(result.value)} {result.unit}",
        "" if result.spread is None else f"{result.spread:.1%}",
        "" if result.ratio is None else f"{result.ratio:.3g}x",
        "" if result.target is None else f"{result.target}: {_word(bool(result.reached))}",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _word(reached: bool) -> str:
    return "[green]reached[/]" if reached else "[red]missed[/]"


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
