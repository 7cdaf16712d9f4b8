"""The process that `kafka_memory` watches: it warms up, sends when told to, and tells how."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import kafka

from shield import Shield
from shield_kafka import KafkaProducer

WARM_UP = 2_000
FLUSH_S = 60


def main(side: str, address: str, topic: str, sends: int, size: int, bound: int) -> None:
    """Send through one side's producer, told when by lines on standard input."""
    shield = _shield(bound)
    producer: Any = (
        KafkaProducer(shield=shield, bootstrap_servers=address)
        if side == "shielded"
        else kafka.KafkaProducer(bootstrap_servers=address)
    )
    _send(producer, topic, size, WARM_UP)
    producer.flush(FLUSH_S)
    _tell({"warm": True})
    begun = time.perf_counter()
    _send(producer, topic, size, sends)
    seconds = time.perf_counter() - begun
    _tell({"sends": sends, "seconds": seconds, "frozen": shield.ledger().as_dict()})
    producer.flush(FLUSH_S)
    _tell(shield.ledger().as_dict())


def _shield(bound: int) -> Shield:
    rule = {
        "name": "bench",
        "match": "*",
        "in_flight": {"messages": bound, "bytes": "64MiB"},
        "over_limit": ["drop"],
    }
    return Shield({"shield": {"producer": "bench"}, "rules": [rule]})


def _send(producer: Any, topic: str, size: int, sends: int) -> None:
    send, value = producer.send, bytes(size)
    for _ in range(sends):
        send(topic, value)


def _tell(told: dict[str, Any]) -> None:
    """Say one line to the watcher and wait for its answer."""
    print(json.dumps(told), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    side, address, topic, *numbers = sys.argv[1:]
    main(side, address, topic, *map(int, numbers))
