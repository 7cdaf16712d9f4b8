"""What third parties run: contracts under pytest, in their own folder, the plugin installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PLUGIN = """
import shield

class Few(shield.Policy):
    class Settings(shield.StrictModel):
        most: int = 5

    def __init__(self, settings, rule, name):
        super().__init__(settings, rule, name)
        self.taken = 0

    def check(self, message, now):
        return self.refuse("many") if self.taken >= self.settings.most else None

    def acquire(self, message, now):
        self.taken += 1

    def cancel(self, message):
        self.taken -= 1

    def release(self, message, outcome, now):
        self.taken -= 1


class Small(shield.Action):
    def step(self, over):
        return shield.action.Drop() if over.message.size < 100 else None


class Places(shield.Transport):
    scheme = "places"

    def send(self, envelope, done):
        done(None)

    def close(self, timeout_s):
        pass


class Plugin:
    @shield.hookimpl
    def shield_policies(self):
        return {"few": Few}

    @shield.hookimpl
    def shield_actions(self):
        return {"small": Small}

    @shield.hookimpl
    def shield_transports(self):
        return {"places": Places}

installed = Plugin()
"""
TESTS = """
import sys
from shield.testing import ActionContract, PolicyContract
from shield.testing.contract import registry_of
from few import Plugin, Places

class TestFew(PolicyContract):
    plugins = (Plugin(),)
    name = "few"
    settings = {"most": 3}

class TestSmall(ActionContract):
    plugins = (Plugin(),)
    link = "small"

def test_its_transport_is_there_once():
    assert registry_of((Plugin(),)).transport("places") is Places
"""
COPIED = TESTS.replace(
    "from few import Plugin, Places",
    """
import importlib.util
spec = importlib.util.spec_from_file_location("few_of_the_source_tree", "few.py")
few = importlib.util.module_from_spec(spec)
spec.loader.exec_module(few)
Plugin, Places = few.Plugin, few.Places
""",
)
"""As where the tests import the source tree beside what is installed."""


def run_pytest(folder, tests, *arguments, plugin=PLUGIN):
    """Run pytest in a folder where the plugin is installed as a distribution of its own."""
    (folder / "few.py").write_text(plugin)
    (folder / "test_few.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    info = folder / "few_dist-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: few-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shield]\nfew = few:installed\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )


@pytest.mark.parametrize("tests", [TESTS, COPIED], ids=["the-same", "a-copy"])
def test_contracts_pass_while_the_plugin_is_installed(tmp_path, tests):
    """Also where the classes under test are others than those that the entry point names."""
    ran = run_pytest(tmp_path, tests)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout


def test_a_plugin_that_is_installed_is_there_without_being_given(tmp_path):
    """The copy that an entry point names is the one under test where no other is given."""
    tests = TESTS.replace("plugins = (Plugin(),)", "")
    ran = run_pytest(tmp_path, tests, "-k", "first or step_or_declines")
    assert ran.returncode == 0, ran.stdout + ran.stderr


FAULTS = {
    "expected Permit, came": ("self.settings.most else", "0 else"),
    "expected what is allowed there, came another: its verdict: found True of type bool": (
        'self.refuse("many")',
        "True",
    ),
    "expected room for 3 messages, came room for 2": (
        "def cancel(self, message):\n        self.taken -= 1",
        "def cancel(self, message):\n        pass",
    ),
}


@pytest.mark.parametrize("says", FAULTS)
def test_a_contract_that_fails_says_what_was_expected_and_what_came(tmp_path, says):
    """In the words of the contract."""
    before, after = FAULTS[says]
    cases = "first or may_say or given_back"
    ran = run_pytest(tmp_path, TESTS, "-k", cases, plugin=PLUGIN.replace(before, after))
    assert ran.returncode == 1
    assert says in ran.stdout


def test_assertions_of_contracts_show_what_they_compared(tmp_path):
    """Nothing is to be configured for that: `shield.testing` registers its own for rewriting."""
    broken = PLUGIN.replace(
        "def acquire(self, message, now):", "def acquire(self, message, now, more):"
    )
    ran = run_pytest(tmp_path, TESTS, "-k", "no_message_makes_it_raise", plugin=broken)
    assert ran.returncode == 1
    assert "assert {'few (take)': " in ran.stdout or "Left contains" in ran.stdout
