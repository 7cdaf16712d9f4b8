"""`shield config`: check, show and describe the settings."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shield.cli.effective import effective, origins
from shield.cli.file_schema import file_schema
from shield.cli.printing import Json, print_json
from shield.cli.toml import dumps, inline
from shield.config.settings import ShieldSettings, load_settings
from shield.shield import Shield

cli = typer.Typer(no_args_is_help=True, help="Check, show and describe the settings.")


@cli.command()
def check(ctx: typer.Context, as_json: Json = False) -> None:
    """Load the settings as a service would; exit 2 with a line for each thing that is wrong.

    For example in CI:  shield --config deploy/shield.toml config check
    """
    settings = load_settings(ctx.obj)
    Shield(settings)  # finds what is impossible together
    policies = settings.registry.policies
    rules = [
        _summary(rule, index, policies) for index, rule in enumerate(effective(settings)["rules"])
    ]
    if as_json:
        print_json({"source": settings.source, "mode": settings.mode, "rules": rules})
        return
    console = Console(highlight=False)
    console.print(escape(_headline(settings)), soft_wrap=True)
    if rules:
        console.print(_table(rules))


def _summary(rule: dict[str, Any], index: int, policies: Container[str]) -> dict[str, Any]:
    """Return what a rule comes to: what it covers, its policies, its chain, what comes back."""
    return {
        "name": rule.get("name") or f"rule-{index + 1}",
        "match": rule["match"],
        "except": rule.get("except"),
        "producers": rule.get("producers", "*"),
        "direction": rule.get("direction", "publish"),
        "mode": rule.get("mode"),
        "policies": {key: value for key, value in rule.items() if key in policies},
        "over_limit": rule.get("over_limit", []),
        "redrive": rule.get("redrive"),
    }


def _headline(settings: ShieldSettings) -> str:
    number = len(settings.rules)
    if settings.source == "settings" and not number:
        return "no ./shield.toml and no $SHIELD_CONFIG: every message passes and is counted"
    rules = "1 rule" if number == 1 else f"{number} rules"
    mode = "" if settings.mode == "enforce" else f", mode {settings.mode}"
    source = "the environment" if settings.source == "settings" else settings.source
    return f"{source}: fine, {rules}{mode}"


def _table(rules: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("name", "match", "policies", "over limit"):
        table.add_column(name, overflow="fold")
    for rule in rules:
        name = rule["name"] if rule["mode"] is None else f"{rule['name']} ({rule['mode']})"
        cells = (name, _match(rule), _policies(rule), _chain(rule))
        table.add_row(*map(escape, cells))
    return table


def _match(rule: dict[str, Any]) -> str:
    match = str(rule["match"])
    if rule["except"] is not None:
        match += f" except {rule['except']}"
    return match if rule["producers"] == "*" else f"{match} from {rule['producers']}"


def _chain(rule: dict[str, Any]) -> str:
    """Return the actions in order; a chain that runs out raises. Then how messages come back."""
    links = (link if isinstance(link, str) else inline(link) for link in rule["over_limit"])
    chain = " > ".join(links) or "raise"
    return chain if rule["redrive"] is None else f"{chain}, redrive {rule['redrive']}"


def _policies(rule: dict[str, Any]) -> str:
    """Return a line for each policy: its name and the settings given."""
    return "\n".join(
        f"{name}  " + " ".join(f"{key}={value}" for key, value in table.items())
        for name, tables in rule["policies"].items()
        for table in tables
    )


@cli.command()
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Print the effective settings, and where each came from; passwords in URLs are masked.

    The text is TOML, as in shield.toml. See what a variable changes:

    SHIELD_MODE=shadow shield config show
    """
    settings = load_settings(ctx.obj)
    found, came_from = effective(settings), origins(settings)
    if as_json:
        print_json({"source": settings.source, "origins": came_from, "settings": found})
    else:
        typer.echo(dumps(found, came_from), nl=False)


@cli.command()
def schema(ctx: typer.Context, _json: Json = True) -> None:
    """Print the JSON schema of shield.toml, with the keys of every plugin's policies.

    For editors that check TOML:  shield config schema > shield.schema.json
    """
    print_json(file_schema(load_settings(ctx.obj).registry))
