"""A process that offers messages by the clock, and tells what became of them."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from typing import Any

from benchmarks.overload.clients import Producer, producer_of
from benchmarks.overload.load import USERS, Span, body, criticality, due
from benchmarks.overload.rules import settings
from shield import Shield

SETTLE_S = 30.0


def main(broker: str, side: str, address: str, place: str) -> None:
    """Connect, say so, read what to offer from standard input, and offer it."""
    shield = Shield(settings(broker, place)) if side == "shield" else None
    producer = producer_of(broker, address, place, shield)
    print(json.dumps({"ready": True}), flush=True)
    order = json.loads(sys.stdin.readline())
    told = offer(producer, Span(*order["span"]), order["per_s"], order["seed"])
    producer.close()
    print(json.dumps({**told, "ledger": shield and _settled(shield)}), flush=True)


def offer(producer: Producer, span: Span, per_s: float, seed: int) -> dict[str, Any]:
    """Offer so many messages a second; return how many of each kind, and how many were shed."""
    offered: Counter[str] = Counter()
    shed: Counter[str] = Counter()
    total = total_shed = 0
    now = time.monotonic
    for burst in due(span, per_s, random.Random(seed)):
        at_s = now()
        measured = span.measures(at_s)
        for _ in range(burst):
            name = criticality(total)
            user = b"user-%d" % (total % USERS)
            was_shed = producer.offer(body(at_s, name), name, user)
            total += 1
            total_shed += was_shed
            if measured:
                offered[name] += 1
                shed[name] += was_shed
    return {"total": total, "total_shed": total_shed, "offered": offered, "shed": shed}


def _settled(shield: Shield) -> dict[str, Any]:
    give_up = time.monotonic() + SETTLE_S
    while shield.ledger().in_flight and time.monotonic() < give_up:
        time.sleep(0.01)
    return shield.ledger().as_dict()


if __name__ == "__main__":
    main(*sys.argv[1:])
