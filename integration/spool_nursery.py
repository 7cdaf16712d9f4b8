"""Raises processes that send through a spool until they are killed; each is forked, not started.

`python -m integration.spool_nursery BROKER DESTINATION FOLDER`, with a Kafka's `host:port` and a
topic, or a RabbitMQ's URL and a queue: each line on standard input is one life, `endless` or `to
the end`; the answer is its process id, and `ended` when it is over.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shield import Shield
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher

RATE = {"endless": "400/s", "to the end": "1000000/s"}
Accepted = Callable[[bytes], object]


def live(broker: str, destination: str, folder: Path, kind: str) -> None:
    """Send numbered messages, a part of them through the spool; note which were accepted."""
    rule = {
        "name": "orders",
        "match": "*",
        "quota": {"rate": RATE[kind], "burst": 20},
        "over_limit": [{"spool": {"size": "256MiB"}}, "raise"],
    }
    settings = {"shield": {"producer": "sender", "spool_dir": str(folder)}, "rules": [rule]}
    shield = Shield(settings)
    rabbitmq = broker.startswith("amqp://")
    client: Any = (Publisher if rabbitmq else kafka_producer)(broker, shield=shield)
    if kind == "to the end":
        while shield.ledger().spooled:
            time.sleep(0.02)
        client.close()
        return
    send = to_queue if rabbitmq else to_topic
    file = os.open(folder / "accepted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while True:
        body = b"%d-%d" % (os.getpid(), number)
        send(client, destination, body, number, lambda body: os.write(file, body + b"\n"))
        number += 1
        time.sleep(0.0005)


def kafka_producer(broker: str, shield: Shield) -> KafkaProducer:
    """Return a producer; a positional address, as a Publisher takes it."""
    return KafkaProducer(bootstrap_servers=broker, shield=shield)


def to_topic(
    producer: KafkaProducer, topic: str, body: bytes, number: int, accepted: Accepted
) -> None:
    """Send, every other one with a key."""
    key = None if number % 2 else b"key-%d" % (number % 7)
    producer.send(topic, body, key=key).add_callback(lambda _metadata: accepted(body))


def to_queue(
    publisher: Publisher, queue: str, body: bytes, _number: int, accepted: Accepted
) -> None:
    """Publish by way of the default exchange."""
    future = publisher.publish("", queue, body)
    future.add_done_callback(lambda done: done.exception() or accepted(body))


def main(broker: str, destination: str, folder: str) -> None:
    """Fork a process for each line."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                live(broker, destination, Path(folder), line.strip())
            finally:
                os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
