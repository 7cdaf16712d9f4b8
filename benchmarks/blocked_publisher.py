"""The process that `rabbitmq_memory` watches: it publishes when told to, and tells how."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import Future, wait

from pika import BasicProperties

from shield import Shield, fate
from shield_rabbitmq import Publisher

WARM_UP = 2_000
SETTLE_S = 60
PERSISTENT = BasicProperties(delivery_mode=2)


def main(url: str, queue: str, sends: int, size: int, bound: int) -> None:
    """Publish before, into and after the alarm, told by lines on standard input when to go on."""
    shield = _shield(bound)
    with Publisher(url, shield=shield) as publisher:
        _publish(publisher, queue, size, min(WARM_UP, bound))
        _settle(shield)
        _tell({"warm": True})
        begun = time.perf_counter()
        kept = _publish(publisher, queue, size, sends)
        seconds = time.perf_counter() - begun
        blocked = {"blocked": publisher.blocked, "held": len(kept)}
        _tell({"seconds": seconds, **blocked, "ledger": shield.ledger().as_dict()})
        done = wait(kept, SETTLE_S).done
        failed = sum(future.exception() is not None for future in done)
        told = {"recovered": len(done), "failed": failed, "ledger": shield.ledger().as_dict()}
        _tell(told)
        _publish(publisher, queue, size, min(WARM_UP, bound))
        _settle(shield)
        _tell({"blocked": publisher.blocked, "ledger": shield.ledger().as_dict()})


def _shield(bound: int) -> Shield:
    rule = {
        "name": "bench",
        "match": "*",
        "in_flight": {"messages": bound, "bytes": "64MiB"},
        "over_limit": ["drop"],
    }
    return Shield({"shield": {"producer": "bench"}, "rules": [rule]})


def _publish(publisher: Publisher, queue: str, size: int, sends: int) -> list[Future[None]]:
    """Publish so many as fast as it goes; return the futures of those that were not dropped."""
    kept = []
    body = bytes(size)
    for _ in range(sends):
        future = publisher.publish("", queue, body, PERSISTENT)
        if not future.done() and fate(future) == "sent":
            kept.append(future)
    return kept


def _settle(shield: Shield) -> None:
    """Wait until nothing is in flight."""
    give_up = time.monotonic() + SETTLE_S
    while shield.ledger().in_flight and time.monotonic() < give_up:
        time.sleep(0.01)


def _tell(told: dict[str, object]) -> None:
    """Say one line to the watcher and wait for its answer."""
    print(json.dumps(told), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    url, queue, *numbers = sys.argv[1:]
    main(url, queue, *map(int, numbers))
