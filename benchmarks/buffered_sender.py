"""The process that `buffer` measures: it fills a buffer, drains it, and tells what that took."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import kafka
import psutil

import shield
from shield import Message, Policy, Refusal, Shield
from shield.capabilities import ReadsSignals
from shield_kafka import KafkaProducer

WARM_UP = 2_000
FLUSH_S = 600
BOUND = {"messages": 10_000, "bytes": "64MiB"}


class Gate(Policy, ReadsSignals):
    """Admits everything, or nothing, as the benchmark says."""

    is_open = True

    def check(self, message: Message, now: float) -> Refusal | None:
        return None if self.is_open else self.refuse("shut")


class Plugin:
    @shield.hookimpl
    def shield_policies(self) -> Mapping[str, type[Policy]]:
        return {"gate": Gate}


def main(address: str, topic: str, messages: int, size: int) -> None:
    """Send so many to the topic with a bare client, then as many through a buffer; tell how."""
    own = _shield(messages)
    told = {"bare_per_s": _bare(address, topic, messages, size)}
    producer = KafkaProducer(shield=own, bootstrap_servers=address)
    _send(producer, topic, size, WARM_UP)
    producer.flush(FLUSH_S)
    told |= _buffered(producer, own, topic, messages, size)
    producer.close()
    ledger = own.ledger()
    told["delivered"] = ledger.delivered - WARM_UP
    told["balanced"] = ledger.balanced
    print(json.dumps(told), flush=True)


def _bare(address: str, topic: str, messages: int, size: int) -> float:
    producer = kafka.KafkaProducer(bootstrap_servers=address)
    _send(producer, topic, size, WARM_UP)
    producer.flush(FLUSH_S)
    begun = time.perf_counter()
    _send(producer, topic, size, messages)
    producer.flush(FLUSH_S)
    taken_s = time.perf_counter() - begun
    producer.close()
    return messages / taken_s


def _buffered(
    producer: KafkaProducer, own: Shield, topic: str, messages: int, size: int
) -> dict[str, Any]:
    (gate,) = (policy for policy in own.rules[0].policies if isinstance(policy, Gate))
    before = _memory()
    gate.is_open = False
    begun = time.perf_counter()
    _send(producer, topic, size, messages)
    filled_s = time.perf_counter() - begun
    kept = own.ledger().buffered
    beside = (_memory() - before) / messages - size
    begun = time.perf_counter()
    gate.is_open = True
    own.engine.signals_changed()
    producer.flush(FLUSH_S)
    drained_s = time.perf_counter() - begun
    return {
        "kept": kept,
        "bytes_beside": beside,
        "fill_per_s": messages / filled_s,
        "drain_per_s": messages / drained_s,
    }


def _shield(messages: int) -> Shield:
    bound = {"messages": messages, "bytes": "100GiB"}
    rule = {"name": "bench", "match": "*", "gate": {}, "over_limit": [{"buffer": bound}]}
    rule["in_flight"] = BOUND
    return Shield({"shield": {"producer": "bench"}, "rules": [rule]}, plugins=[Plugin()])


def _send(producer: Any, topic: str, size: int, messages: int) -> None:
    send = producer.send
    for _ in range(messages):
        send(topic, bytes(size))


def _memory() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    address, topic, *numbers = sys.argv[1:]
    main(address, topic, *map(int, numbers))
