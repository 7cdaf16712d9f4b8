"""What `shield redrive` can be told, on a real Kafka: where to, how fast, and for how long."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from functools import partial

import pytest

from integration.brokers import create_topic
from integration.reading import count, read
from integration.redriving import command, fill_topic, run
from tests.eventually import eventually


@pytest.fixture
def topics(kafka):
    """A fresh overflow topic, and a fresh original."""
    return create_topic(kafka.address), create_topic(kafka.address)


def test_to_sends_all_to_one_place_at_its_rate(kafka, topics):
    """Past where it was going; 300 messages at 200 a second take a second and a half."""
    overflow, original = topics
    elsewhere = create_topic(kafka.address)
    fill_topic(kafka.address, overflow, original, range(300))
    url = f"kafka://{kafka.address}"
    done = run(f"{url}/{overflow}", "--to", f"{url}/{elsewhere}", "--rate", "200/s")
    assert (done["sent"], done["complete"]) == (300, True)
    assert done["seconds"] >= 299 / 200
    assert sorted(int(r.value) for r in read(kafka.address, elsewhere)) == list(range(300))
    assert count(kafka.address, original) == 0


def test_the_rules_pace_it(kafka, topics, tmp_path):
    """Messages go back through the same quota: 300 at 200 a second, less a burst of ten."""
    overflow, original = topics
    fill_topic(kafka.address, overflow, original, range(300))
    rule = f'match = "{original}"\nquota = {{ rate = "200/s", burst = 10, per = "destination" }}\n'
    (tmp_path / "shield.toml").write_text(f"[[rules]]\n{rule}")
    config = str(tmp_path / "shield.toml")
    done = run(f"kafka://{kafka.address}/{overflow}", SHIELD_CONFIG=config)
    assert (done["sent"], done["complete"]) == (300, True)
    assert done["seconds"] >= 290 / 200
    assert count(kafka.address, original) == 300


def test_follow_goes_on_with_what_comes_later_until_it_is_interrupted(kafka, topics):
    """Ctrl-C ends it in order: it says what it has sent, and the next run finds nothing."""
    overflow, original = topics
    fill_topic(kafka.address, overflow, original, range(100))
    source = f"kafka://{kafka.address}/{overflow}"
    following = subprocess.Popen(
        command(source, "--follow", "--json"), stdout=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: count(kafka.address, original) == 100)
        fill_topic(kafka.address, overflow, original, range(100, 150))
        eventually(lambda: count(kafka.address, original) == 150)
        following.send_signal(signal.SIGINT)
        printed, _ = following.communicate(timeout=150)
    finally:
        following.kill()
    done = json.loads(printed)
    assert (done["sent"], done["interrupted"]) == (150, True)
    assert run(source)["sent"] == 0


def test_progress_is_shown_in_a_terminal(kafka, topics):
    """A bar with how many of how many are back; then what came of it, in a table."""
    overflow, original = topics
    fill_topic(kafka.address, overflow, original, range(50))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(f"kafka://{kafka.address}/{overflow}"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(theirs)
    shown = b"".join(iter(partial(_read_or_end, ours), b"")).decode()
    assert process.wait(60) == 0, shown
    assert "50/50" in shown
    assert original in shown


def _read_or_end(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""
