"""`python -m benchmarks.instructed LOOP N [ADDRESS]`: does one thing so many times, to be counted.

A child process of the benchmark `instructions`. It loads what its loop needs and no more, because
all that it does is counted, and ends at once: what an ordinary exit would clean up is not of
interest. No Shield here has a thread of its own.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any

Loop = Callable[[int], object]

KAFKA_BARE = "kafka-python, bare: send"
KAFKA = "kafka-python, quota and in_flight: send"
KAFKA_HEADERS_BARE = "kafka-python, bare: send with headers"
KAFKA_HEADERS = "kafka-python, quota and in_flight: send with headers"
KAFKA_REFUSED = "kafka-python: send refused, dropped"
TOPIC = "counted"


def decided(name: str) -> Loop:
    """Return a loop of the benchmark `decide`."""
    from benchmarks.decide import all_loops

    return all_loops()[name]


def sends(shielded: bool, headers: list[tuple[str, bytes]] | None = None) -> Callable[[str], Loop]:
    """Return what makes a loop of sends, by a client or by its subclass."""
    return lambda address: _sends(_producer(address, _wide() if shielded else None), headers)


def refused(address: str) -> Loop:
    """Return a loop of sends that are all over the limit."""
    quota = {"rate": "1/d", "burst": 1}
    rule = {"name": "counted", "match": TOPIC, "quota": quota, "over_limit": ["drop"]}
    return _sends(_producer(address, {"rules": [rule]}), None)


def _wide() -> dict[str, Any]:
    bound = {"messages": 10_000_000, "bytes": "64GiB"}
    quota = {"rate": "1000000000/s"}
    return {"rules": [{"name": "counted", "match": TOPIC, "quota": quota, "in_flight": bound}]}


def _producer(address: str, settings: dict[str, Any] | None) -> Any:
    """Return a producer that keeps what it is given: its thread would be counted as it comes.

    The one batch of each partition neither fills nor grows old.
    """
    if settings is None:
        from kafka import KafkaProducer as Producer
    else:
        from shield_kafka import KafkaProducer as Producer
    shield = {} if settings is None else {"shield": settings}
    producer = Producer(
        bootstrap_servers=address,
        api_version=(2, 3),
        batch_size=1 << 24,
        linger_ms=300_000,
        delivery_timeout_ms=400_000,
        **shield,
    )
    producer.send(TOPIC, b"first")
    producer.flush()
    return producer


def _sends(producer: Any, headers: list[tuple[str, bytes]] | None) -> Loop:
    send, value = producer.send, bytes(100)

    def plainly(times: int) -> None:
        for _ in range(times):
            send(TOPIC, value)

    def with_headers(times: int) -> None:
        for _ in range(times):
            send(TOPIC, value, b"key", headers)

    return plainly if headers is None else with_headers


HEADERS = [("trace", b"0123456789abcdef"), ("tenant", b"acme")]
CLIENTS: dict[str, Callable[[str], Loop]] = {
    KAFKA_BARE: sends(shielded=False),
    KAFKA: sends(shielded=True),
    KAFKA_HEADERS_BARE: sends(shielded=False, headers=HEADERS),
    KAFKA_HEADERS: sends(shielded=True, headers=HEADERS),
    KAFKA_REFUSED: refused,
}


def main(name: str, times: str, address: str) -> None:
    """Make the loop, run it, end."""
    gc.disable()  # when it would run depends on what else was made
    loop = CLIENTS[name](address) if name in CLIENTS else decided(name)
    loop(50)  # caches are filled, code is specialized
    loop(int(times))
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
