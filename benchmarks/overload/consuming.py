"""A process that consumes as much as its bound allows, and tells how late each message was."""

from __future__ import annotations

import json
import sys
import threading
from array import array
from typing import Any

from benchmarks.overload.bound import Bound
from benchmarks.overload.clients import Consumer, consumer_of
from benchmarks.overload.load import CAPACITY, CRITICAL, DEADLINE_S, Span, read


def main(broker: str, address: str, place: str) -> None:
    """Connect, say so, consume between the first line on standard input and the second."""
    consumer = consumer_of(broker, address, place)
    print(json.dumps({"ready": True}), flush=True)
    span = Span(*json.loads(sys.stdin.readline())["span"])
    stop = threading.Event()
    threading.Thread(target=_wait_for_a_line, args=(stop,), daemon=True).start()
    told = consume(consumer, span, stop)
    consumer.close()
    print(json.dumps(told), flush=True)


def _wait_for_a_line(stop: threading.Event) -> None:
    sys.stdin.readline()
    stop.set()


def consume(consumer: Consumer, span: Span, stop: threading.Event) -> dict[str, Any]:
    """Consume until told to stop; return what was in time, and how long the critical ones took."""
    bound = Bound(CAPACITY)
    total = in_time = late = 0
    critical, all_of_them = array("d"), array("d")
    for raw in consumer.take(stop):
        if raw is None:
            bound.idle()
        else:
            done_s = bound.work()
            total += 1
            if span.measures(done_s):
                offered_s, name = read(raw)
                took_s = done_s - offered_s
                in_time += took_s <= DEADLINE_S
                late += took_s > DEADLINE_S
                all_of_them.append(took_s)
                if name in CRITICAL:
                    critical.append(took_s)
    return {
        "total": total,
        "in_time": in_time,
        "late": late,
        "critical_s": list(critical),
        "took_s": list(all_of_them),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
