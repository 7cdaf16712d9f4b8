"""`shield demo`: see it work, on an embedded broker or a real one."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType

from shield.cli.demo import screen
from shield.cli.demo.report import Report
from shield.cli.demo.run import DemoRun
from shield.cli.demo.view import view
from shield.cli.printing import Json, print_json
from shield.config.settings import read_settings
from shield.demo import Demo
from shield.errors import SettingsError, ShieldError
from shield.settings_model import nearest
from shield.shield import Shield

TICK_S = 0.2


def demo(
    broker: Annotated[str, typer.Option(help="Which client to show.")] = "kafka",
    bootstrap: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="A real broker: HOST:PORT, or for RabbitMQ also a URL."
        ),
    ] = None,
    messages: Annotated[
        int | None, typer.Option(min=1, help="How many messages each producer sends at the most.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long they send.")] = 6.0,
    as_json: Json = False,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the last screen as a picture.")
    ] = None,
) -> None:
    """See it work: producers, their limits, and proof that no message is lost.

    Starts a Kafka inside this process and sends to it through the drop-in producer, then reads
    all of it back with another client. Ends with 1 if the two counts differ by one message.

    On a real Kafka:  shield demo --bootstrap localhost:9092

    On a RabbitMQ, with a queue that fills and is shed:  shield demo --broker rabbitmq
    """
    if svg is not None:
        _make(svg)
    console = Console(highlight=False, quiet=as_json)
    with _demo(broker, bootstrap) as entered:
        run = DemoRun(entered, seconds, messages)
        opening = screen.opening(entered.title, run.script, seconds)
        console.print(opening)
        report = _play(run, console)
    closing = screen.closing(run.script, report, entered.next_steps)
    console.print(closing)
    if as_json:
        print_json(report.as_dict(entered.title, run.script.parts))
    if svg is not None:
        svg.write_text(_picture(opening, closing), encoding="utf-8")
    raise typer.Exit(0 if report.proven else 1)


def _demo(broker: str, bootstrap: str | None) -> Demo[Shield]:
    demos = read_settings({}).registry.demos
    if broker not in demos:
        raise SettingsError(f"--broker: found {broker!r}; {nearest(broker, list(demos))}")
    return demos[broker](bootstrap)


def _play(run: DemoRun, console: Console) -> Report:
    with view(console, run.script) as show, _interrupt_stops(run):
        try:
            run.start()
            while run.going(TICK_S):
                show(run.report())
        finally:
            run.stop()
    return run.report()


@contextmanager
def _interrupt_stops(run: DemoRun) -> Iterator[None]:
    """Let Ctrl-C end the run early, with its tables; pressed again it is a KeyboardInterrupt."""

    def stop(_signal: int, _frame: object) -> None:
        run.stop_soon()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _make(file: Path) -> None:
    """Find out before the run whether the picture can be written after it."""
    try:
        file.touch()
    except OSError as error:
        raise ShieldError(f"--svg: {file}: cannot be written: {error.strerror}") from error


def _picture(*shown: RenderableType) -> str:
    console = Console(
        record=True, file=io.StringIO(), width=screen.WIDTH, force_terminal=True, highlight=False
    )
    console.print(*shown, sep="\n")
    return console.export_svg(title="shield demo")
