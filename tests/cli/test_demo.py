from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest

from shield import Ledger
from shield.cli.demo_run import Pace, Snapshot
from shield.cli.demo_screen import bar
from shield.cli.demo_script import PARTS, QUOTA
from shield_kafka.demo import KafkaDemo

PRODUCERS = {part.name for part in PARTS}


def test_json_holds_the_ledger_and_what_the_broker_holds(run):
    result = run("demo", "--json", "--seconds", "1.5", "--messages", "250")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["equal"] is report["balanced"] is report["ledger"]["balanced"] is True
    counts, ledger, producers = report["counts"], report["ledger"], report["producers"]
    assert all(count["ledger"] == count["broker"] for count in counts.values())
    assert sum(count["broker"] for count in counts.values()) == ledger["offered"]
    assert set(producers) == PRODUCERS
    assert all(0 < producer["offered"] <= 250 for producer in producers.values())
    assert producers["greedy"]["overflowed"] == producers["greedy"]["over_limit"] > 0
    assert producers["bursty"]["overflowed"] > 0
    assert producers["modest"]["over_limit"] == 0
    assert producers["patient"]["waited"] == producers["patient"]["over_limit"] > 0
    assert counts["shield-demo.overflow"]["broker"] == ledger["overflowed"] > 0


def test_plain_lines_and_the_proof_where_there_is_no_terminal(run):
    result = run("demo", "--seconds", "1.5")
    assert result.exit_code == 0, result.output
    assert "[[rules]]" in result.stdout
    assert result.stdout.count("✓ equal") == 3
    assert "Every message is accounted for" in result.stdout
    assert "shield demo --bootstrap HOST:PORT" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


def test_one_message_of_difference_is_found(run, monkeypatch):
    count = KafkaDemo.count
    monkeypatch.setattr(
        KafkaDemo,
        "count",
        lambda demo, place: count(demo, place) - (place == demo.overflow),
    )
    result = run("demo", "--seconds", "0.8", "--messages", "150")
    assert result.exit_code == 1
    assert "✗ differ by 1" in result.stdout
    assert "ledger and broker differ" in result.stdout
    assert "accounted for" not in result.stdout


def test_svg_is_a_picture_of_the_last_screen(run, tmp_path):
    result = run("demo", "--seconds", "0.8", "--messages", "50", "--svg", "demo.svg")
    assert result.exit_code == 0, result.output
    picture = (tmp_path / "demo.svg").read_text()
    assert picture.startswith("<svg")
    assert "greedy" in picture
    assert str(tmp_path) not in picture


def test_a_picture_that_cannot_be_written_is_refused_before_the_run(run):
    result = run("demo", "--svg", "nowhere/demo.svg")
    assert result.exit_code == 2
    assert (
        result.stderr == "--svg: nowhere/demo.svg: cannot be written: No such file or directory\n"
    )


def test_a_broker_that_does_not_answer_is_one_line(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        began = time.monotonic()
        result = run("demo", "--bootstrap", address)
    assert time.monotonic() - began < 10
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert f"no Kafka answers at {address}" in line


def test_an_unknown_broker_is_refused_with_what_is_allowed(run):
    result = run("demo", "--broker", "kafk")
    assert result.exit_code == 2
    assert result.stderr == "--broker: found 'kafk'; did you mean 'kafka'? allowed: kafka\n"


def test_ctrl_c_ends_the_run_with_its_tables():
    command = [sys.executable, "-m", "shield", "demo", "--seconds", "60"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "modest" in line:
                break
        demo.send_signal(signal.SIGINT)
        output, errors = demo.communicate(timeout=30)
    assert demo.returncode == 0, errors
    assert output.count("✓ equal") == 3
    assert errors == ""


@pytest.mark.parametrize(
    ("rate", "cells"), [(0, 0), (QUOTA, 4), (3 * QUOTA, 12), (100 * QUOTA, 20)]
)
def test_a_bar_marks_the_quota_and_never_outgrows_its_column(rate, cells):
    text = bar(rate).plain
    assert text.count("█") == cells
    assert text[4] == "│"


def test_a_producer_that_has_sent_nothing_has_an_empty_ledger():
    snapshot = Snapshot(0.0, Ledger(), Counter(), {part.name: Pace() for part in PARTS})
    assert snapshot.of(PARTS[0]).offered == 0
