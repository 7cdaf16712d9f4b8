"""`shield redrive --follow` while its broker is away: killed and started again, or frozen."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from integration.brokers import create_topic
from integration.queues import Queues
from integration.reading import read
from integration.redriving import command, fill_queue, fill_topic
from tests.eventually import eventually

AWAY_S = 15.0
"""Longer than a send may be without an answer, and than a look for more takes."""
EACH = 60


@contextmanager
def following(source: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run it; what it says on its way is in the log."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command(source, "--follow", "--json"),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()


def killed(broker: Any) -> None:
    broker.kill()
    time.sleep(AWAY_S)
    broker.restart()


def frozen(broker: Any) -> None:
    broker.pause()
    time.sleep(AWAY_S)
    broker.resume()


def follows_on(
    broker: Any,
    goes_away: Callable[[Any], None],
    source: str,
    fill: Callable[[range], None],
    back: Callable[[], set[int]],
    log: Path,
) -> None:
    """Whatever came before and after is back; Ctrl-C ends it with what it has done."""
    fill(range(EACH))
    with following(source, log) as process:
        eventually(lambda: back() == set(range(EACH)))
        goes_away(broker)
        fill(range(EACH, 2 * EACH))
        eventually(lambda: back() == set(range(2 * EACH)) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=150)
    said = log.read_text()
    assert process.returncode == 0, said
    done = json.loads(printed)
    assert done["interrupted"], done
    assert done["sent"] >= 2 * EACH
    assert back() == set(range(2 * EACH)), said
    assert "Traceback" not in said


@pytest.mark.parametrize("goes_away", [killed, frozen])
def test_it_follows_a_kafka_that_was_away(private_kafka, tmp_path, goes_away):
    """A topic on it is read on from where it stood."""
    kafka = private_kafka()
    overflow, original = create_topic(kafka.address), create_topic(kafka.address)
    follows_on(
        kafka,
        goes_away,
        f"kafka://{kafka.address}/{overflow}",
        lambda numbers: fill_topic(kafka.address, overflow, original, numbers),
        lambda: {int(record.value) for record in read(kafka.address, original)},
        tmp_path / "log",
    )


@pytest.mark.parametrize("goes_away", [killed, frozen])
def test_it_follows_a_rabbitmq_that_was_away(private_rabbitmq, tmp_path, goes_away):
    """A queue on it is consumed on; what was back stays so."""
    rabbitmq = private_rabbitmq()
    found: set[int] = set()
    with Queues(rabbitmq.address) as queues:
        overflow, original = queues.queue(), queues.queue()
    rabbitmq.save_declared()

    def fill(numbers: range) -> None:
        with pika.BlockingConnection(pika.URLParameters(rabbitmq.address)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            fill_queue(channel, overflow, original, original, numbers)

    def back() -> set[int]:
        with pika.BlockingConnection(pika.URLParameters(rabbitmq.address)) as connection:
            channel = connection.channel()
            while (got := channel.basic_get(original, auto_ack=True))[0]:
                found.add(int(got[2]))
        return found

    source = f"{rabbitmq.address.removesuffix('%2F')}/{overflow}"
    follows_on(rabbitmq, goes_away, source, fill, back, tmp_path / "log")
