from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

from shield.cli import app as cli_app
from shield.config import registry

PLUGIN = """
import typer
import shield

@shield.hookimpl
def shield_commands(cli):
    @cli.command("hello")
    def hello(ctx: typer.Context) -> None:
        "Say hello."
        typer.echo(f"hello from {ctx.obj}")

    @cli.command("plugins")
    def plugins() -> None:
        typer.echo("not ours")
"""
BROKEN = """
import shield

@shield.hookimpl
def shield_commands(cli):
    raise RuntimeError("no luck")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a plugin as an entry point would."""

    def install(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        point = metadata.EntryPoint(name, name, "shield")
        points = (*registry._entry_points(), point)
        monkeypatch.setattr(registry, "_entry_points", lambda: points)

    return install


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("demo", "--seconds", "soon"), ("config", "frob"), ("--no",)]
)
def test_what_is_not_understood_ends_with_status_2(run, arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "example"),
    [
        ((), "shield --config shield.toml config check"),
        (("demo",), "shield demo --bootstrap localhost:9092"),
        (("setup",), "shield setup --broker rabbitmq --dry-run"),
        (("config", "check"), "config check"),
        (("config", "show"), "SHIELD_MODE=shadow shield config show"),
        (("config", "schema"), "config schema > shield.schema.json"),
        (("plugins",), "disable = ["),
        (("redrive",), "shield redrive kafka://localhost:9092/orders.overflow --rate 200/s"),
    ],
)
def test_help_teaches_with_an_example(run, arguments, example):
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert example in result.stdout


def test_version(run):
    assert run("--version").stdout == f"shield {metadata.version('broker-shield')}\n"


def test_plugins_lists_what_is_installed_and_what_is_off(run, write):
    write('[plugins]\ndisable = ["wait"]')
    infos = {info["name"]: info for info in json.loads(run("plugins", "--json").stdout)}
    assert infos["quota"]["hooks"] == ["shield_policies"]
    assert infos["quota"]["distribution"] == "broker-shield"
    assert (infos["quota"]["state"], infos["wait"]["state"]) == ("on", "off")
    assert "quota" in run("plugins").stdout


def test_a_plugin_adds_a_subcommand(run, write, install):
    install("hello_plugin", PLUGIN)
    file = write("")
    assert "Say hello." in run("--help").stdout
    assert run("--config", file, "hello").stdout == "hello from shield.toml\n"


def test_a_plugin_cannot_replace_a_subcommand(run, install):
    install("hello_plugin", PLUGIN)
    assert "not ours" not in run("plugins").stdout


def test_a_disabled_plugin_adds_no_subcommand(run, write, install):
    install("hello_plugin", PLUGIN)
    write('[plugins]\ndisable = ["hello_plugin"]')
    assert run("hello").exit_code == 2


def test_a_plugin_that_raises_leaves_the_others_alone(run, install):
    install("broken_plugin", BROKEN)
    install("hello_plugin", PLUGIN)
    result = run("hello")
    assert result.exit_code == 0
    assert "plugin broken_plugin: subcommands left out" in result.stderr


def test_help_works_where_settings_are_wrong(run, write):
    write("this is not TOML")
    assert run("--help").exit_code == 0


def test_python_m_shield_runs_the_same_command():
    command = [sys.executable, "-m", "shield", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("shield ")


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("kafka", ("demo",), "all"),
        ("confluent_kafka", ("demo",), "all"),
        ("pika", ("demo", "--broker", "rabbitmq"), "rabbitmq"),
        ("pika", ("setup", "--broker", "rabbitmq"), "rabbitmq"),
        ("kafka", ("setup", "--broker", "kafka"), "kafka"),
    ],
)
def test_what_needs_a_client_says_how_to_get_it(module, arguments, extra):
    """In one line, with the extra that brings it."""
    refused = run_without(module, *arguments)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert f"pip install 'broker-shield[{extra}]'" in line


@pytest.mark.parametrize("module", ["kafka", "confluent_kafka", "pika"])
def test_without_a_client_no_plugin_is_off(module):
    """They load; only what needs it does not work."""
    plugins = json.loads(run_without(module, "plugins", "--json").stdout)
    assert {plugin["state"] for plugin in plugins} == {"on"}


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where importing a client fails, as where it is not installed."""
    code = f"import sys\nsys.modules[{module!r}] = None\nfrom shield.cli import main\nmain()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_main_is_the_entry_point():
    (script,) = metadata.entry_points(group="console_scripts", name="shield")
    assert script.load().__module__ == "shield.cli"
    assert cli_app is not None
