"""One side of the redrive benchmark, in a process of its own; prints its figures as JSON."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import kafka
import psutil
from kafka import TopicPartition

from shield import Shield
from shield.operations.redrive_job import Redriving

RULE = {
    "name": "bench",
    "match": "*",
    "quota": {"rate": "1000000000/s"},
    "in_flight": {"messages": 100_000, "bytes": "1GiB"},
}


def bare(address: str, source: str, target: str, messages: int) -> dict[str, Any]:
    """Poll and send, as one would by hand."""
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False
    )
    producer = kafka.KafkaProducer(bootstrap_servers=address, acks="all")
    places = [TopicPartition(source, number) for number in consumer.partitions_for_topic(source)]
    consumer.assign(places)
    moved = 0
    begun = time.perf_counter()
    while moved < messages:
        for records in consumer.poll(timeout_ms=200).values():
            for record in records:
                producer.send(
                    target,
                    record.value,
                    key=record.key,
                    headers=record.headers,
                    timestamp_ms=record.timestamp,
                )
            moved += len(records)
    producer.flush()
    return {"rate": messages / (time.perf_counter() - begun)}


def redriven(address: str, source: str, target: str, messages: int) -> dict[str, Any]:
    """Bring them back; from the first message that is back to the last."""
    redriving = Redriving(
        f"kafka://{address}/{source}?group_id={target}",
        to=f"kafka://{address}/{target}",
        shield=Shield({"shield": {"producer": "bench"}, "rules": [RULE]}),
    )
    looks: list[tuple[float, int, float]] = []
    ended = threading.Event()
    process = psutil.Process()

    def look() -> None:
        while not ended.wait(0.01):
            looks.append((time.perf_counter(), redriving.sent, process.memory_info().rss / 1e6))

    watcher = threading.Thread(target=look)
    watcher.start()
    result = redriving.run()
    end = time.perf_counter()
    ended.set()
    watcher.join()
    begun, before = next((at, sent) for at, sent, _ in looks if sent)
    tenth = next(mb for _, sent, mb in looks if sent >= messages / 10)
    return {
        "rate": (messages - before) / (end - begun),
        "sent": result.sent,
        "grown_mb": max(0.0, max(mb for *_, mb in looks) - tenth),
    }


if __name__ == "__main__":
    *_, how = sys.argv
    side = bare if how == "bare" else redriven
    json.dump(side(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])), sys.stdout)
