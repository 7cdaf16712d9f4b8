"""A third party's package: built as a wheel, installed beside Shield's wheel, found and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "third_party"
RULES = """
[[rules]]
name = "orders"
match = "orders"
slots = { header = "customer", most = 1 }
over_limit = ["drop_without customer", "overflow sqlite://BOX"]
"""
USE = """
import sys

import shield
from shield.testing import FakeClient

own = shield.Shield.load()
client = FakeClient(own)
sent = [client.publish("orders", b"%d" % n, headers={"customer": "acme"}) for n in range(3)]
nobodys = [client.publish("orders", b"nobody's") for _ in range(2)]
print(*map(shield.fate, sent), *map(shield.fate, nobodys))
client.ack()
ledger = own.ledger()
print(ledger.balanced, ledger.delivered, ledger.overflowed, ledger.dropped)

source = own.registry.transport("sqlite").source(shield.URL.parse(sys.argv[1]))
print(*(taken.envelope.body.decode() for taken in source.take(10, 1.0)))
source.close()
print(shield.__file__)
"""


class Environment:
    """A fresh virtual environment; Shield's dependencies are those of the one that runs this."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        (self.site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    @property
    def site(self) -> Path:
        """Where packages are installed."""
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found

    def install(self, project: Path, wheels: Path) -> None:
        """Build the wheel of a project and install it; asks no index."""
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels))
        self._run(*pip, *build, str(project))
        (wheel,) = wheels.glob("*.whl")
        self._run(
            *pip, "install", "--no-deps", "--no-index", "--target", str(self.site), str(wheel)
        )

    def run(self, *arguments: str, folder: Path) -> str:
        """Run its Python and return what that prints."""
        return self._run(str(self.python), *arguments, folder=folder)

    def _run(self, *command: str, folder: Path = ROOT) -> str:
        variables = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=150, cwd=folder, env=variables
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("fresh") / "venv")
    for project in (ROOT, PACKAGE):
        made.install(project, tmp_path_factory.mktemp("wheels"))
    return made


def test_its_plugin_is_found_and_on(environment, tmp_path):
    """By its entry point, without any setting."""
    listed = json.loads(environment.run("-m", "shield", "plugins", "--json", folder=tmp_path))
    (acme,) = (plugin for plugin in listed if plugin["name"] == "acme")
    assert (acme["distribution"], acme["version"], acme["state"]) == ("acme-shield", "1.0.0", "on")
    assert set(acme["hooks"]) == {"shield_policies", "shield_actions", "shield_transports"}
    assert len(listed) == len({plugin["name"] for plugin in listed})


def test_a_rule_uses_its_policy_its_action_and_its_transport(environment, tmp_path):
    """One message has the slot, two of its customer overflow, what is nobody's is dropped."""
    (tmp_path / "shield.toml").write_text(RULES.replace("BOX", str(tmp_path / "box.db")))
    environment.run("-m", "shield", "config", "check", folder=tmp_path)
    said = environment.run("-c", USE, f"sqlite://{tmp_path / 'box.db'}", folder=tmp_path)
    fates, counts, bodies, where = said.splitlines()
    assert fates == "sent overflowed overflowed sent dropped"
    assert counts == "True 2 2 1"
    assert bodies == "1 2"
    assert Path(where).is_relative_to(environment.folder), "Shield's own wheel was not used"


def test_it_keeps_the_contracts(environment, tmp_path):
    """Its own tests pass where it is installed."""
    said = environment.run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={PACKAGE}", folder=PACKAGE
    )
    assert " passed" in said
    assert "skipped" not in said
