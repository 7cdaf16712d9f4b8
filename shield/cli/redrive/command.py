"""`shield redrive`: bring messages back from where they were set aside."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Annotated

import typer

from shield.cli.printing import Json
from shield.cli.redrive.view import RedriveView, view_for
from shield.operations.redrive_job import Redriven, Redriving
from shield.shield import Shield

TICK_S = 0.2
STOPS = (signal.SIGINT, signal.SIGTERM)


def redrive(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="A URL as kafka://host:port/topic, amqp://host/vhost/queue or file:///path; the "
            "path of a spool or file; or a rule.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="original|URL",
            help="Where to: a broker, or one place on it. Without it, where each was going, if a "
            "rule covers that; 'original' asks no rule.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL|GLOB",
            help="Where headers may send messages beside that: another broker as "
            "kafka://host:port, or destinations as 'orders.*'. Can be given several times.",
        ),
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="At the most, as 200/s; besides the rules.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSION",
            help="Which messages, as 'rule==orders && producer!=audit'; the others stay.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at the most.")] = None,
    park: Annotated[
        str | None,
        typer.Option(metavar="DEST", help="Where to with what was set aside too often."),
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="How often is too often.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would go back; leave all as it is.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what comes later, until Ctrl-C.")
    ] = False,
    origin_header: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where others than Shield say where they were going."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Go on where it would refuse because messages may go.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring messages back from where they were set aside, through the rules, to where they belong.

    A message leaves its place only when the broker has confirmed it where it belongs: Ctrl-C, or
    anything worse, loses nothing, and the next run goes on. Ends with 1 if some did not go back;
    Ctrl-C and SIGTERM end it in order, with 0 where all that was taken is back.

    Where a message was going its headers say, and anybody may have written those: it goes nowhere
    but to destinations that the rules cover, on the broker that is read, unless you allow more.

    Look first:  shield redrive kafka://localhost:9092/orders.overflow --dry-run

    Then:  shield redrive kafka://localhost:9092/orders.overflow --rate 200/s
    """
    redriving = Redriving(
        source,
        shield=Shield.load(ctx.obj),
        to=to,
        rate=rate,
        where=where,
        allow=allow or (),
        limit=limit,
        follow=follow,
        park=park,
        max_attempts=max_attempts,
        dry_run=dry_run,
        origin_header=origin_header,
        confirmed=yes,
    )
    run = redriving.survey if dry_run else redriving.run
    result = _watched(redriving, run, view_for(as_json=as_json, url=str(redriving.url)))
    raise typer.Exit(0 if result.complete else 1)


def _watched(redriving: Redriving, run: Callable[[], Redriven], view: RedriveView) -> Redriven:
    """Run it on a thread of its own, and show how it gets on from this one."""
    outcome: Future[Redriven] = Future()

    def work() -> None:
        try:
            outcome.set_result(run())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="shield-redrive", daemon=True)
    with _signals_stop(redriving, view):
        thread.start()
        try:
            while thread.is_alive():
                view.show(redriving)
                thread.join(TICK_S)
        finally:
            view.end()
    result = outcome.result()
    view.close(result)
    return result


@contextmanager
def _signals_stop(redriving: Redriving, view: RedriveView) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop it once all sent is answered; a second ends it at once."""

    def stop(_signal: int, _frame: object) -> None:
        redriving.stop()
        view.stopping(redriving.unanswered)
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {number: signal.signal(number, stop) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
