"""`spool SIZE`: messages over the limit on disk, and `shield spool` to look at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shield import Action, Transport, hookimpl
from shield.plugins.actions.spool.action import Spool
from shield.plugins.actions.spool.offline import SpoolFile

if TYPE_CHECKING:
    import typer


@hookimpl
def shield_actions() -> Mapping[str, type[Action]]:
    """Contribute `spool`."""
    return {"spool": Spool}


@hookimpl
def shield_transports() -> Mapping[str, type[Transport]]:
    """Contribute `spool:///path`, to be redriven from."""
    return {"spool": SpoolFile}


@hookimpl
def shield_commands(cli: typer.Typer) -> None:
    """Add `shield spool`."""
    from shield.plugins.actions.spool.commands import cli as commands

    cli.add_typer(commands, name="spool")
