"""`shield setup`: make what the rules' overflow actions need on a broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shield.cli.printing import Json, print_json
from shield.compile import compile_rules
from shield.errors import SettingsError
from shield.settings import ShieldSettings, load_settings
from shield.setup import Destination, Setup, State, Thing
from shield.strict import nearest
from shield.url import is_url

STYLES = {State.MADE: "green", State.MISSING: "yellow", State.REFUSED: "bold red"}
Found = list[tuple[Destination, Thing]]


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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look, and make nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make the overflow destinations of all rules: topics, or exchanges with a queue each.

    What is there already is left as it is; where it is of another kind, that is said, and the
    exit status is 1. Destinations that are URLs are on other brokers and not looked at.

    See what is missing:  shield setup --broker rabbitmq --dry-run

    Make it:  shield setup --broker kafka --bootstrap localhost:9092
    """
    settings = load_settings(ctx.obj)
    setups = settings.registry.setups
    if broker not in setups:
        raise SettingsError(f"--broker: found {broker!r}; {nearest(broker, list(setups))}")
    wanted = list(_destinations(settings))
    with setups[broker](bootstrap, partitions) as entered:
        found = list(_visit(entered, wanted, make=not dry_run))
        title = entered.title
    if as_json:
        print_json({"broker": title, "things": [_as_dict(*pair) for pair in found]})
    elif found:
        Console().print(_table(found, title))
    else:
        typer.echo("no rule overflows to a destination on its own broker: nothing to set up")
    raise typer.Exit(any(thing.state is State.REFUSED for _, thing in found))


def _destinations(settings: ShieldSettings) -> Iterator[Destination]:
    """Yield where the rules' chains send to on their own broker, each place once."""
    seen: set[str] = set()
    for rule in compile_rules(settings, settings.registry):
        for action in rule.chain:
            name = action.destination
            if name is not None and not is_url(name) and name not in seen:
                seen.add(name)
                yield Destination(name, rule.match)


def _visit(entered: Setup, wanted: list[Destination], *, make: bool) -> Iterator[Any]:
    visit = entered.make if make else entered.look
    for destination in wanted:
        for thing in visit(destination):
            yield destination, thing


def _as_dict(destination: Destination, thing: Thing) -> dict[str, str]:
    return {
        "destination": destination.name,
        "what": thing.what,
        "name": thing.name,
        "state": str(thing.state),
        "detail": thing.detail,
    }


def _table(found: Found, title: str) -> Table:
    table = Table(
        "destination", "what", "name", "state", "", box=None, pad_edge=False, title=escape(title)
    )
    table.title_justify = "left"
    for destination, thing in found:
        cells = (destination.name, thing.what, thing.name, thing.state, thing.detail)
        table.add_row(*map(escape, cells), style=STYLES.get(thing.state))
    return table
