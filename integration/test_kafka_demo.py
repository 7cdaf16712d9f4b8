"""`shield demo --bootstrap` on a real Kafka, as a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from integration.reading import count

DEMO = [sys.executable, "-m", "shield", "demo"]


def demo(*arguments: str) -> str:
    """Run it without a terminal; return what it printed."""
    run = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, timeout=150)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    return run.stdout


@pytest.mark.smoke
def test_the_demo_accounts_for_every_message_on_a_real_kafka(kafka):
    """Ends by itself, says what to try next; older messages in its topics are not counted."""
    orders = json.loads(demo("--bootstrap", kafka.address, "--seconds", "1", "--json"))
    began = time.monotonic()
    printed = demo("--bootstrap", kafka.address)
    assert time.monotonic() - began < 30
    assert printed.count("✓ equal") == 3
    assert "Every message is accounted for" in printed
    assert "next shield demo" in printed
    first = orders["counts"]["shield-demo.overflow"]
    assert first["ledger"] == first["broker"] > 0
    assert count(kafka.address, "shield-demo.overflow") > first["broker"]


def test_no_producer_sends_more_than_it_was_told(kafka):
    """`--messages` is for each of the four."""
    report = json.loads(
        demo("--bootstrap", kafka.address, "--messages", "40", "--seconds", "9", "--json")
    )
    assert {name: one["offered"] for name, one in report["producers"].items()} == dict.fromkeys(
        ("greedy", "bursty", "modest", "patient"), 40
    )
    assert report["seconds"] < 9
