"""What the world does to a command: one line, and exit status 1."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHIELD = [sys.executable, "-m", "shield"]


@pytest.mark.parametrize("command", [["--help"], ["config", "schema"], ["plugins", "--json"]])
def test_a_full_disk_is_one_line(command):
    """Whatever is printed on it."""
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [*SHIELD, *command], stdout=full, stderr=subprocess.PIPE, text=True, timeout=150
        )
    assert ran.returncode == 1
    assert ran.stderr == "shield: No space left on device\n"


def test_who_reads_no_more_is_told_nothing():
    """As with `| head -1`."""
    with subprocess.Popen(
        [*SHIELD, "config", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as shown:
        shown.stdout.close()
        assert shown.stderr.read() == ""
    assert shown.returncode == 1


@pytest.mark.parametrize("url", ["amqp://nobody.invalid//queue", "amqp://127.0.0.1:1//queue"])
def test_a_broker_that_is_away_is_one_line(run, url):
    """Also one whose name nobody knows."""
    result = run("redrive", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("cannot read from amqp://")
    assert result.stderr.count("\n") == 1


def test_a_rule_whose_messages_come_back_is_shown(run, write):
    """With its policies, its chain and that."""
    write(
        '[[rules]]\nmatch = "orders"\nquota = "5/s"\nover_limit = "overflow later"\n'
        'redrive = "auto"\n'
    )
    result = run("config", "check")
    assert result.exit_code == 0, result.stderr
    assert "overflow later, redrive auto" in result.stdout
