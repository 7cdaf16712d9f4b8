"""A process that sends through overflow and spool for as long as it is let, whatever happens.

`python -m integration.moments_worker BROKER DESTINATION OVERFLOW FOLDER`: a Kafka's `host:port` and
two topics, or a RabbitMQ's URL and two exchanges. What it was told is in the folder's `accepted`:
one line a message, its body and its fate.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pika import BasicProperties

import shield
from shield import Shield
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher

KEY = "created"
PERSISTENT = BasicProperties(delivery_mode=2)
EVERY_S = 0.002
MOST_ASIDE = 20
"""How many may be on their way to the overflow place; what is more goes to the spool."""


def shield_for(destination: str, overflow: str, folder: Path) -> Shield:
    """Admit a part; the rest overflows, or goes to disk, and from there out again."""
    rule = {
        "name": "orders",
        "match": f"{destination}*",
        "quota": {"rate": "100/s", "burst": 20},
        "over_limit": [
            {"overflow": {"destination": overflow, "messages": MOST_ASIDE}},
            {"spool": {"size": "256MiB", "durability": "fsync"}},
            "raise",
        ],
    }
    return Shield({"shield": {"producer": "sender", "spool_dir": str(folder)}, "rules": [rule]})


def sender(broker: str, destination: str, own: Shield) -> Callable[[bytes, int], Any]:
    """Return what sends one message, and returns its future."""
    if broker.startswith("amqp://"):
        publisher = Publisher(broker, shield=own)
        return lambda body, _number: publisher.publish(destination, KEY, body, PERSISTENT)
    producer = KafkaProducer(bootstrap_servers=broker, shield=own)
    return lambda body, number: producer.send(destination, body, key=b"key-%d" % (number % 7))


def tell(file: int, body: bytes, future: Any) -> None:
    """Note that it was accepted, and how; one write, so that a kill leaves a line or none."""
    os.write(file, b"%b %b\n" % (body, shield.fate(future).encode()))


def on_accepted(future: Any, accepted: Callable[[], None]) -> None:
    """Call it when the future is done, unless it failed; for the futures of both clients."""
    if hasattr(future, "add_callback"):
        future.add_callback(lambda _metadata: accepted())
    else:
        future.add_done_callback(lambda done: done.exception() or accepted())


def main(broker: str, destination: str, overflow: str, folder: str) -> None:
    """Send numbered messages until killed; what is refused is not sent again."""
    own = shield_for(destination, overflow, Path(folder))
    send = sender(broker, destination, own)
    file = os.open(Path(folder) / "accepted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while True:
        body = b"%d-%d" % (os.getpid(), number)
        try:
            future = send(body, number)
        except Exception as refused:
            print(f"{body!r}: {refused!r}", file=sys.stderr)
        else:
            on_accepted(future, lambda body=body, future=future: tell(file, body, future))
        number += 1
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
