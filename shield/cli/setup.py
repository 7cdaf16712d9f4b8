"""`shield setup`: make what the rules' overflow actions need on a broker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shield.cli.printing import Json, print_json
from shield.config.build import compile_rules
from shield.config.credentials import with_credentials
from shield.config.settings import ShieldSettings, load_settings
from shield.errors import SettingsError, ShieldError
from shield.provisioning import Destination, Provisioner, Resource, State
from shield.settings_model import nearest
from shield.units import parse_seconds
from shield.url import URL, is_url

STYLES = {State.MADE: "green", State.MISSING: "yellow", State.REFUSED: "bold red"}


def setup(
    ctx: typer.Context,
    broker: Annotated[
        str, typer.Option(help="Which broker's clients use these rules.", show_default=False)
    ],
    bootstrap: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="HOST:PORT, or for RabbitMQ also a URL; else on this machine."
        ),
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, help="Of a new Kafka topic; else as many as the original's."),
    ] = None,
    retention: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="For how long they are to keep messages, as 7d."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look, and make nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make the overflow destinations of all rules: topics, or exchanges with a queue each.

    Says what each keeps, and warns where what is set aside may be lost there. --retention sets for
    how long: retention.ms of a topic, also of one that is there, or x-message-ttl of a new queue.

    What is there already is left as it is otherwise; where it is of another kind, that is said,
    and the exit status is 1. Destinations that are URLs are made on the brokers that these name,
    as the user whom they, or [credentials], name.

    See what is missing:  shield setup --broker rabbitmq --dry-run

    Make it:  shield setup --broker kafka --bootstrap localhost:9092
    """
    settings = load_settings(ctx.obj)
    setups = settings.registry.setups
    if broker not in setups:
        raise SettingsError(f"--broker: found {broker!r}; {nearest(broker, list(setups))}")
    wanted = list(_destinations(settings))
    retention_s = None if retention is None else _seconds(retention)
    setup = setups[broker](bootstrap, partitions)
    setup.retention_s = retention_s
    with setup as entered:
        own = [destination for destination, url in wanted if url is None]
        found = list(_visit(entered, own, make=not dry_run))
        title = entered.title
    for destination, url in wanted:
        if url is not None:
            found += _elsewhere(
                settings, destination, url, partitions, retention_s, make=not dry_run
            )
    if as_json:
        print_json({"broker": title, "things": [asdict(row) for row in found]})
    elif found:
        Console().print(_table(found))
        for row in found:
            for warning in row.warnings:
                typer.echo(f"warning: {row.what} {row.name}: {warning}", err=True)
    else:
        typer.echo("no rule overflows to a destination that has to be made: nothing to set up")
    raise typer.Exit(any(row.state is State.REFUSED for row in found))


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise SettingsError(f"--retention: found {text!r}; {error}") from None


def _destinations(settings: ShieldSettings) -> Iterator[tuple[Destination, URL | None]]:
    """Yield where the rules' chains send to, each place once; with its URL where it has one."""
    seen: set[str] = set()
    for rule in compile_rules(settings, settings.registry):
        for action in rule.chain:
            name = action.destination
            if name is None or name in seen or (is_url(name) and action.place is None):
                continue
            seen.add(name)
            yield Destination(name, rule.match), action.place


def _visit(entered: Provisioner, wanted: list[Destination], *, make: bool) -> Iterator[SetupRow]:
    visit = entered.make if make else entered.look
    for destination in wanted:
        for thing in visit(destination):
            yield SetupRow.of(entered.title, destination.name, thing)


def _elsewhere(
    settings: ShieldSettings,
    destination: Destination,
    url: URL,
    partitions: int | None,
    retention_s: float | None,
    *,
    make: bool,
) -> list[SetupRow]:
    """Visit the broker of a URL; one that cannot be reached is a refusal, and no more than that."""
    transport = settings.registry.transport(url.scheme)
    there = transport.setup(with_credentials(url, settings.credentials), partitions)
    if there is None:
        return []
    setup, name = there
    setup.retention_s = retention_s
    try:
        with setup as entered:
            rows = list(_visit(entered, [Destination(name, destination.match)], make=make))
    except ShieldError as error:
        rows = [
            SetupRow.of(
                setup.title, name, Resource("broker", setup.title, State.REFUSED, str(error))
            )
        ]
    return [replace(row, destination=destination.name) for row in rows]


@dataclass(frozen=True)
class SetupRow:
    """One thing that a destination needs, as it is printed."""

    broker: str
    destination: str
    what: str
    name: str
    state: State
    detail: str
    keeps: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, broker: str, destination: str, thing: Resource) -> SetupRow:
        """Return that of a thing on a broker."""
        return cls(
            broker,
            destination,
            thing.what,
            thing.name,
            thing.state,
            thing.detail,
            thing.keeps,
            thing.warnings,
        )


def _table(found: list[SetupRow]) -> Table:
    names = ("broker", "destination", "what", "name", "state", "keeps", "")
    table = Table(*names, box=None, pad_edge=False)
    for row in found:
        cells = (row.broker, row.destination, row.what, row.name, row.state, row.keeps, row.detail)
        table.add_row(*map(escape, cells), style=STYLES.get(row.state))
    return table
