"""`shield plugins`: what is installed and what it contributes."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shield.cli.printing import Json, print_json
from shield.config.registry import PluginInfo
from shield.config.settings import installed


def plugins(ctx: typer.Context, as_json: Json = False) -> None:
    """List the plugins: name, version, distribution, hooks, state.

    Built-in policies and actions are plugins too. To switch one off, name it in the settings:

        [plugins]
        disable = ["quiet_hours"]
    """
    registry = installed(ctx.obj)
    if as_json:
        print_json([asdict(info) for info in registry.infos])
    else:
        Console().print(_table(registry.infos))
    for wrong in (*registry.faults, *registry.missing):
        typer.echo(wrong, err=True)


def _table(infos: list[PluginInfo]) -> Table:
    table = Table("name", "version", "distribution", "hooks", "state", box=None, pad_edge=False)
    for info in infos:
        hooks = ", ".join(hook.removeprefix("shield_") for hook in info.hooks)
        cells = (info.name, info.version, info.distribution, hooks, info.state)
        table.add_row(*map(escape, cells), style=None if info.state == "on" else "dim")
    return table
