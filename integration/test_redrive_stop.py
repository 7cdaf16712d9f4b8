"""Ctrl-C and SIGTERM at random moments: what is back is back once, and the next run goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from integration.brokers import create_topic
from integration.queues import Queues
from integration.reading import read
from integration.redriving import command, fill_queue, fill_topic, run
from integration.test_redrive_killed import set_aside
from integration.test_transports import amqp_url

MESSAGES = 8_000
RUNS = 10
LONGEST_S = 0.6
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def stopped(source: str, number: signal.Signals) -> str:
    """Run it and stop it some time after its first message is back; return what it printed."""
    process = subprocess.Popen(
        command(source), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("0 back"):
            break
    time.sleep(random.uniform(0.0, LONGEST_S))
    process.send_signal(number)
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 0 or "interrupted" not in out, out  # it was over already
    return line + out


def stopped_again_and_again(source: str) -> int:
    """Stop ten runs, each at another moment, then let one run to its end."""
    interrupted = 0
    for turn in range(RUNS):
        printed = stopped(source, SIGNALS[turn % 2])
        interrupted += "interrupted, the next run goes on" in printed
    assert run(source)["complete"]
    return interrupted


def check(bodies: list[bytes]) -> None:
    """All are there, and each once."""
    twice = sum(1 for times in Counter(bodies).values() if times > 1)
    assert twice == 0
    assert set(bodies) == {b"%d" % number for number in range(MESSAGES)}


@pytest.mark.timeout(400)
def test_from_a_topic_none_comes_twice(kafka: Any) -> None:
    """Also where other messages of the same partition were sent before it, and one was not."""
    overflow, original = create_topic(kafka.address, 2), create_topic(kafka.address, 2)
    fill_topic(kafka.address, overflow, original, range(MESSAGES))
    assert stopped_again_and_again(f"kafka://{kafka.address}/{overflow}") >= 1
    check([record.value for record in read(kafka.address, original)])


@pytest.mark.timeout(400)
def test_from_a_queue_none_comes_twice(rabbitmq: Any) -> None:
    """What is confirmed is acknowledged before it ends."""
    original = f"retain-{uuid.uuid4().hex}"
    with Queues(rabbitmq.address) as queues:
        overflow = queues.queue()
        queues.channel.queue_declare(original, durable=True)
        fill_queue(queues.channel, overflow, original, original, range(MESSAGES))
    assert stopped_again_and_again(amqp_url(rabbitmq.address, overflow)) >= 1
    with Queues(rabbitmq.address) as queues:
        check(queues.bodies(original))
        queues.channel.queue_delete(original)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["file", "spool"])
def test_from_a_file_or_a_spool_none_comes_twice(kafka: Any, tmp_path: Path, kind: str) -> None:
    """What is back is noted there before it ends."""
    url = f"file://{tmp_path}/orders"
    chain = f"overflow {url}" if kind == "file" else "spool 64MiB"
    (original,) = set_aside(kafka.address, tmp_path, [chain], MESSAGES)
    source = url if kind == "file" else str(tmp_path / "p+0.spool")
    assert stopped_again_and_again(source) >= 1
    check([r.value for r in read(kafka.address, original) if r.value != b"admitted"])
