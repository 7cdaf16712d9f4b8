"""The direction of imports: the core stands alone, everything else stands on it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shield

ROOT = Path(__file__).parent.parent
CLIENTS = {"kafka", "pika", "confluent_kafka", "aiokafka", "aio_pika", "redis"}
ADAPTERS = {path.parent.name for path in (ROOT / "adapters").glob("*/__init__.py")}
PUBLIC = {
    "shield",
    "shield.action",
    "shield.algorithms.bound",
    "shield.algorithms.codel",
    "shield.algorithms.gcra",
    "shield.engine.spin_lock",
    "shield.cli.printing",
    "shield.capabilities",
    "shield.clock",
    "shield.policy",
    "shield.process_hooks",
    "shield.envelope",
    "shield.redriving.read_ahead",
    "shield.chain.retained",
    "shield.engine.queueing.wait_queue",
    "shield.redriving.worker",
    "shield.safe_files",
    "shield.selection",
    "shield.chain.blocking",
    "shield.chain.runner",
    "shield.transport",
    "shield.units",
    "shield.url",
}
"""What a third party's plugin may use; a built-in uses no more.

Beside the public names: what an action needs that keeps messages and brings them back, what tells
whether a queue stands, how files are opened, and how subcommands print.
"""


def imported(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports, also under TYPE_CHECKING."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, {package}"
            found.add(str(node.module))
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def core() -> list[Path]:
    plugins = ROOT / "shield" / "plugins"
    return [path for path in files("shield") if plugins not in path.parents]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tops(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("path", core(), ids=named)
def test_the_core_imports_no_client_no_adapter_and_no_plugin(path):
    """Nothing in it knows a broker, or names a built-in."""
    modules = imported(path)
    assert not tops(modules) & (CLIENTS | ADAPTERS)
    assert not {module for module in modules if module.startswith("shield.plugins")}


@pytest.mark.parametrize("path", files("shield/plugins"), ids=named)
def test_built_ins_use_only_what_a_third_party_may(path):
    """Shield's public names, units, and their own siblings."""
    own = {module for module in imported(path) if module.partition(".")[0] == "shield"}
    assert {module for module in own if not module.startswith("shield.plugins.")} <= PUBLIC
    assert not tops(imported(path)) & (CLIENTS | ADAPTERS)


@pytest.mark.parametrize("path", files("shield/plugins"), ids=named)
def test_built_ins_take_public_names_alone(path):
    """What they import from `shield` is in its `__all__`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "shield":
            assert {alias.name for alias in node.names} <= set(shield.__all__)


@pytest.mark.parametrize("path", files("adapters"), ids=named)
def test_adapters_do_not_import_each_other(path):
    """Each can be used where the other's client is not installed."""
    own = path.relative_to(ROOT / "adapters").parts[0]
    assert not tops(imported(path)) & (ADAPTERS - {own})


@pytest.mark.parametrize("path", files("shield/testing"), ids=named)
def test_the_tools_for_tests_need_no_test_framework(path):
    """A contract is a class with methods; any runner will do."""
    assert not tops(imported(path)) & {"pytest", "hypothesis", "unittest"}


def loaded_by(statement: str) -> set[str]:
    """Return what is in `sys.modules` of a fresh process after a statement."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_shield_loads_no_client_no_adapter_and_no_plugin():
    """In a fresh process; not even the command line's libraries."""
    modules = loaded_by("import shield, shield.chain.runner, shield.testing")
    assert not tops(modules) & (CLIENTS | ADAPTERS | {"rich", "typer", "pytest"})
    assert not {module for module in modules if module.startswith("shield.plugins")}


def test_a_shield_with_rules_loads_no_client():
    """Plugins of adapters are asked without importing what they adapt."""
    modules = loaded_by("import shield; shield.Shield({'rules': [{'match': '*', 'quota': '5/s'}]})")
    assert not tops(modules) & CLIENTS
    assert "shield.plugins.policies.quota" in modules


def test_all_public_names_are_there():
    """And no other name of the package is meant to be used."""
    assert [name for name in shield.__all__ if not hasattr(shield, name)] == []
    assert sorted(shield.__all__) == sorted(set(shield.__all__))
