"""`shield redrive`: what it prints, and its exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest

from shield import Kind, Shield
from shield.config import registry
from shield.testing import FakeClient
from tests.making import LISTENING
from tests.memory import Broker, Memory, diverted

OVERFLOW = "memory://b/overflow"


@pytest.fixture(autouse=True)
def brokers(monkeypatch):
    """Fresh ones, and the plugin that brings them, as installed."""
    fresh = defaultdict(Broker)
    monkeypatch.setattr(Memory, "brokers", fresh)
    install(monkeypatch, "tests.memory:PLUGIN")
    monkeypatch.setenv("SHIELD_REDRIVE_ALLOW", '["orders.*"]')
    return fresh


def install(monkeypatch, plugin):
    """Have an entry point name it."""
    points = (*registry._entry_points(), metadata.EntryPoint("one", plugin, "shield"))
    monkeypatch.setattr(registry, "_entry_points", lambda: points)


def fill(brokers, *envelopes):
    brokers["b"].places["overflow"] += envelopes


def test_it_says_what_came_back(run, brokers):
    """And ends with 0."""
    fill(brokers, diverted(0), diverted(1, rule="other"))
    result = run("redrive", OVERFLOW)
    assert result.exit_code == 0
    assert "2 back in" in result.stdout
    assert "orders  orders.created         1" in result.stdout
    assert len(brokers["b"].places["orders.created"]) == 2


def test_installed_observers_hear_of_it(run, brokers, monkeypatch):
    """As of what a running service brings back by itself."""
    install(monkeypatch, "tests.making:LISTENING")
    fill(brokers, diverted(0), diverted(1))
    assert run("redrive", OVERFLOW).exit_code == 0
    assert LISTENING.destinations(Kind.REDRIVEN) == ["orders.created"] * 2


def test_json_is_one_document(run, brokers):
    """With counts by rule and destination, and what did not go back by its id."""
    fill(brokers, diverted(0), diverted(1, attempt=7))
    result = run("redrive", OVERFLOW, "--json")
    assert result.exit_code == 1
    done = json.loads(result.stdout)
    assert (done["source"], done["sent"], done["kept"]) == (OVERFLOW, 1, 1)
    assert done["messages"] == [{"rule": "orders", "destination": "orders.created", "messages": 1}]
    assert done["listed"] == [
        {
            "why": "set aside 7 times",
            "id": "id-1",
            "rule": "orders",
            "destination": "orders.created",
            "producer": "checkout",
            "attempt": 7,
        }
    ]


def test_every_option_is_passed_on(run, brokers):
    """Where, limit, rate, to, park and how often."""
    fill(brokers, diverted(0, rule="other"), diverted(1, attempt=2), diverted(2), diverted(3))
    options = "--where rule==orders --limit 1 --rate 50/s --to memory://c --park parked"
    result = run("redrive", OVERFLOW, *options.split(), "--max-attempts", "2")
    assert result.exit_code == 1
    assert "1 back, 1 parked, 1 not meant" in result.stdout
    assert [e.body for e in brokers["c"].places["orders.created"]] == [b"2"]
    assert [e.body for e in brokers["c"].places["parked"]] == [b"1"]
    assert [e.body for e in brokers["b"].places["overflow"]] == [b"0", b"3"]


def test_a_dry_run_says_what_would_go(run, brokers):
    """And moves nothing."""
    fill(brokers, diverted(0))
    result = run("redrive", OVERFLOW, "--dry-run")
    assert result.exit_code == 0
    assert "1 would go back" in result.stdout
    assert len(brokers["b"].places["overflow"]) == 1


def test_a_rule_names_its_overflow_destination(run, write, brokers):
    """Where that is a URL, `shield redrive RULE` will do."""
    write(
        '[[rules]]\nname = "orders"\nmatch = "orders.*"\nquota = "9/s"\n'
        'over_limit = "overflow memory://b/overflow"'
    )
    fill(brokers, diverted(0))
    assert run("redrive", "orders").exit_code == 0
    result = run("redrive", "audit")
    assert result.exit_code == 2
    assert "found 'audit'" in result.stderr
    assert result.stderr.rstrip().endswith("or a rule (orders)")


def test_a_rule_names_its_spool(run, write, spooled):
    """What a process that is gone has left, whatever that process was called."""
    write("""
        [shield]
        producer = "another"
        [[rules]]
        name = "orders"
        match = "orders.*"
        quota = "9/s"
        over_limit = "spool 8MiB"
        """)
    assert run("redrive", "orders", "--to", "memory://b").exit_code == 0
    assert [e.body for e in Memory.brokers["b"].places["orders.created"]] == [b"spooled"]


def test_a_rule_with_messages_in_two_places_asks_which(run, write, spooled):
    """And names them; each is a FROM."""
    write("""
        [[rules]]
        name = "orders"
        match = "orders.*"
        quota = "9/s"
        over_limit = ["spool 8MiB", "overflow memory://b/overflow"]
        [[rules]]
        name = "audit"
        match = "audit.*"
        quota = "9/s"
        over_limit = "spool 8MiB"
        """)
    line = run("redrive", "orders").stderr
    assert line.startswith("source: found rule 'orders', whose messages are in 2 places; allowed")
    assert line.count("\n") == 1
    spool, _, overflow = line.split()[-3:]
    assert (spool, overflow) == (f"spool://{spooled}", OVERFLOW)
    assert run("redrive", spool, "--to", "memory://b").exit_code == 0
    line = run("redrive", "audit").stderr
    assert line.startswith("source: found rule 'audit', of which nothing is in a place with a URL")
    assert line.endswith("or a rule (orders)\n")


@pytest.fixture
def spooled(tmp_path, monkeypatch):
    """The file of a spool that a process called `checkout` has left, with one message in it."""
    monkeypatch.setenv("SHIELD_SPOOL_DIR", str(tmp_path / "spools"))
    rule = {"name": "orders", "match": "*", "quota": "1/d", "over_limit": "spool 8MiB"}
    client = FakeClient(Shield({"shield": {"producer": "checkout"}, "rules": [rule]}))
    client.publish("orders.created", b"admitted")
    client.publish("orders.created", b"spooled").result(60)
    client.close(5)
    return tmp_path / "spools" / "checkout+orders.spool"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("memory://b/none",), "memory://b/none: there is no such place"),
        (("nothing://b/x",), "source: found 'nothing://b/x'; unknown scheme 'nothing'"),
        ((OVERFLOW, "--where", "rule=x"), "where: found '=x' at character 5; allowed is FIELD"),
        ((OVERFLOW, "--rate", "1"), "rate: found '1'; a rate needs a unit"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(run, brokers, arguments, line):
    """Nothing is sent."""
    fill(brokers, diverted(0))
    result = run("redrive", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert len(brokers["b"].places["overflow"]) == 1


SCRIPT = """
import sys
from importlib import metadata
from shield import Kind, Shield
from shield.config import registry
from shield.testing import FakeClient
from shield.cli import main
from tests.memory import Memory, PLUGIN, diverted

point = metadata.EntryPoint("memory", "tests.memory:PLUGIN", "shield")
points = (*registry._entry_points(), point)
registry._entry_points = lambda: points
Memory.brokers["b"].places["overflow"] += [diverted(n) for n in range(1000)]
main()
"""


def test_ctrl_c_ends_it_in_order():
    """It says how many are back and that the next run goes on; nothing failed, so it ends with 0.

    Without a terminal it prints a line a second.
    """
    command = ["redrive", OVERFLOW, "--rate", "100/s"]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert "back" in process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=150)
    assert process.returncode == 0
    assert "interrupted, the next run goes on" in out
