"""What tests of redrive need: diverted messages on a broker, and the command in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import kafka
import pika

from shield.headers import ATTEMPT, DESTINATION, MESSAGE_ID, ROUTING_KEY, RULE

AN_HOUR_AGO_MS = int(time.time() * 1000) - 3_600_000
"""Not longer: a broker drops what is older than its retention, by these timestamps."""


def headers_of(number: int, destination: str, rule: str = "orders", attempt: int = 1) -> Any:
    """The headers that a diverted message has, as text."""
    return {
        DESTINATION: destination,
        RULE: rule,
        ATTEMPT: str(attempt),
        MESSAGE_ID: f"id-{number}",
        "own": "header",
    }


def fill_topic(
    address: str, overflow: str, original: str, numbers: Iterable[int], **more: Any
) -> None:
    """Put diverted messages into a topic: each number is one, with its last digit as its key."""
    producer = kafka.KafkaProducer(bootstrap_servers=address, linger_ms=20)
    for number in numbers:
        headers = headers_of(number, original, **more)
        producer.send(
            overflow,
            b"%d" % number,
            key=b"%d" % (number % 10),
            headers=[(name, text.encode()) for name, text in headers.items()],
            timestamp_ms=AN_HOUR_AGO_MS + number,
        )
    producer.flush()
    producer.close()


def fill_queue(
    channel: Any, queue: str, original: str, key: str, numbers: Iterable[int], **more: Any
) -> None:
    """Put diverted messages into a queue."""
    for number in numbers:
        headers = {**headers_of(number, original, **more), ROUTING_KEY: key}
        properties = pika.BasicProperties(headers=headers, delivery_mode=2)
        channel.basic_publish("", queue, b"%d" % number, properties)


def command(*arguments: str) -> list[str]:
    """`shield redrive` with these arguments, of an operator who lets all go where it was going."""
    if "--to" not in arguments:
        arguments = (*arguments, "--to", "original")
    return [sys.executable, "-m", "shield", "redrive", *arguments]


def run(*arguments: str, status: int = 0, **environment: str) -> dict[str, Any]:
    """Run it to its end; return the document that it prints."""
    done = subprocess.run(
        command(*arguments, "--json"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == status, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def refusal(*arguments: str, status: int = 2) -> str:
    """Run what cannot be done; return the one line that says why."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.rstrip()
