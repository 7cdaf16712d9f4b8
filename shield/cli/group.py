"""The root of the command line: plugins' subcommands, and errors as one line each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from typer.core import TyperGroup

from shield.config.registry import Registry
from shield.config.settings import installed
from shield.errors import ShieldError, UnavailableError
from shield.plugin_results import shown

BAD_INPUT = 2
FAILED = 1
"""The exit status where the world failed: a broker is away, a disk is full."""


class ShieldGroup(TyperGroup):
    """Looks for plugins only when a subcommand is not its own, or all are to be listed.

    A plugin cannot take a name that is taken. Whatever Shield raises ends with exit status 2 and
    its problems on standard error, a line each.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of our subcommands, then the plugins'."""
        return [*self.commands, *(n for n in _from_plugins(ctx) if n not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return one of ours, else a plugin's, else None."""
        return self.commands.get(cmd_name) or _from_plugins(ctx).get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except ShieldError as error:
            typer.echo(error, err=True)
            status = FAILED if isinstance(error, UnavailableError) else BAD_INPUT
            raise typer.Exit(status) from error

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; what the system refuses ends it with one line and status 1."""
        try:
            with _flushed():
                return super().main(*args, **kwargs)
        except BrokenPipeError:
            _give_up_stdout()
            raise SystemExit(FAILED) from None
        except OSError as error:
            _give_up_stdout()
            typer.echo(f"shield: {_said_by(error)}", err=True)
            raise SystemExit(FAILED) from None


@contextmanager
def _flushed() -> Iterator[None]:
    """Write what was printed while an error still can be told."""
    try:
        yield
    finally:
        sys.stdout.flush()


def _give_up_stdout() -> None:
    """Let nothing more be written where it failed: Python would try again at its end."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


def _said_by(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _from_plugins(ctx: Any) -> dict[str, Any]:
    """Return what plugins add; one that raises adds nothing, and is named on standard error."""
    cli = typer.Typer()
    cli.callback()(lambda: None)
    registry = _registry(ctx)
    for fault in registry.faults:
        typer.echo(fault, err=True)
    for add in registry.implementations("shield_commands"):
        try:
            add(cli=cli)
        except Exception as error:
            origin = registry.origin_of(add)
            name = f"plugin {add.__module__}" + (f" ({origin})" if origin else "")
            typer.echo(f"{name}: subcommands left out: {shown(error)}", err=True)
    return dict(typer.main.get_group(cli).commands)


def _registry(ctx: Any) -> Registry:
    """Return the plugins that the settings leave on; all of them where settings are wrong."""
    try:
        return installed(ctx.params.get("file"))
    except ShieldError:
        return Registry()
