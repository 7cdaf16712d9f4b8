"""One member of a group under rules, as a process of its own.

`python -m integration.consuming poll|iterate KAFKA GROUP TOPIC OVERFLOW ASSIGNOR LOG`. Writes down
what it was handed over before it commits that, and what it has committed, so that a test can tell
also of one that was killed. SIGTERM lets it end in order.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError

from shield_kafka import KafkaConsumer

SESSION_MS = 3000
ASSIGNORS = {"range": RangePartitionAssignor, "cooperative-sticky": CooperativeStickyAssignor}


def rules(overflow: str) -> list[dict[str, Any]]:
    """What holds records back in every way: by rate, by what is not committed, by age."""
    return [
        {
            "name": "received",
            "match": "*",
            "direction": "consume",
            "quota": {"rate": "500/s", "burst": 50},
            "in_flight": {"messages": 60},
            "max_age": "1h",
            "over_limit": ["wait", f"overflow {overflow}"],
        }
    ]


class Log:
    """Lines of JSON, each on the disk's side of the process at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, what: str, **more: Any) -> None:
        """Append one line."""
        line = json.dumps({"what": what, "at": time.monotonic(), **more})
        os.write(self._file, line.encode() + b"\n")


class Listener(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python is untyped
    """Notes which partitions come and go, and whether records wait at that moment."""

    def __init__(self, consumer: KafkaConsumer, log: Log) -> None:
        self._consumer = consumer
        self._log = log

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._note("revoked", revoked)

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._note("assigned", assigned)

    def _note(self, what: str, places: Any) -> None:
        partitions = sorted(place.partition for place in places)
        self._log.write(what, partitions=partitions, waits=self._consumer._hand_over.waits)


def poll(consumer: KafkaConsumer, log: Log, ended: list[int]) -> None:
    """Hand over with `poll`, and commit after each; what was passed has moved the position, too."""
    while not ended:
        for place, records in consumer.poll(200).items():
            log.write("handed", at_of=[place.partition, [record.offset for record in records]])
        try:
            consumer.commit()
        except KafkaError as error:  # a rebalance; what it covered comes again
            log.write("not committed", error=repr(error))
        else:
            offsets = {p.partition: consumer.position(p) for p in consumer.assignment()}
            log.write("committed", offsets=offsets)


def iterate(consumer: KafkaConsumer, log: Log, ended: list[int]) -> None:
    """Hand over one by one; the client commits by itself."""
    while not ended:
        for record in consumer:
            log.write("handed", at_of=[record.partition, [record.offset]])
            if ended:
                break


def main(
    way: str, address: str, group: str, topic: str, overflow: str, assignor: str, path: str
) -> None:
    """Consume until SIGTERM."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    log = Log(Path(path))
    consumer = KafkaConsumer(
        bootstrap_servers=address,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=way == "iterate",
        auto_commit_interval_ms=200,
        consumer_timeout_ms=200,
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=300,
        max_poll_records=100,
        partition_assignment_strategy=[ASSIGNORS[assignor]],
        shield={"shield": {"producer": way}, "rules": rules(overflow)},
    )
    consumer.subscribe([topic], listener=Listener(consumer, log))
    {"poll": poll, "iterate": iterate}[way](consumer, log, ended)
    consumer.close()
    log.write("ended", ledger=consumer.shield.ledger().as_dict())


def committed(address: str, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Return what a group has committed of each partition."""
    from kafka import KafkaConsumer as Client

    with Client(bootstrap_servers=address, group_id=group, enable_auto_commit=False) as reader:
        return {
            number: reader.committed(TopicPartition(topic, number)) or 0
            for number in range(partitions)
        }


if __name__ == "__main__":
    main(*sys.argv[1:])
