"""Puts the `shield` command together."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from shield.cli import config, plugins, setup
from shield.cli.demo.command import demo
from shield.cli.group import ShieldGroup
from shield.cli.redrive.command import redrive
from shield.engine.reporting import refusal_log

app = typer.Typer(
    cls=ShieldGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.add_typer(config.cli, name="config")
app.command("setup")(setup.setup)
app.command("plugins")(plugins.plugins)
app.command("redrive")(redrive)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shield {version('broker-shield')}")
        raise typer.Exit


@app.callback()
def shield(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            is_eager=True,  # so that `--config FILE --help` lists that file's plugins
            help="Settings to use instead of $SHIELD_CONFIG or ./shield.toml.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Overload protection for Kafka and RabbitMQ: quotas, load shedding, backpressure.

    See it work, without a broker:  shield demo

    Check the settings of a service:  shield --config shield.toml config check
    """
    ctx.obj = file
    refusal_log.log.setLevel(logging.ERROR)  # what a command shows says it better
