"""Raises processes that send through a spool until they are killed; each is forked, not started.

`python -m integration.spool_nursery KAFKA TOPIC FOLDER`: each line on standard input is one life,
`endless` or `to the end`; the answer is its process id, and `ended` when it is over.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from shield import Shield
from shield_kafka import KafkaProducer

RATE = {"endless": "400/s", "to the end": "1000000/s"}


def live(address: str, topic: str, folder: Path, kind: str) -> None:
    """Send numbered messages, a part of them through the spool; note which were accepted."""
    rule = {
        "name": "orders",
        "match": "*",
        "quota": {"rate": RATE[kind], "burst": 20},
        "over_limit": [{"spool": {"size": "256MiB"}}, "raise"],
    }
    settings = {"shield": {"producer": "sender", "spool_dir": str(folder)}, "rules": [rule]}
    shield = Shield(settings)
    producer = KafkaProducer(bootstrap_servers=address, shield=shield)
    if kind == "to the end":
        while shield.ledger().spooled:
            time.sleep(0.02)
        producer.close()
        return
    accepted = os.open(folder / "accepted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while True:
        body = b"%d-%d" % (os.getpid(), number)
        key = None if number % 2 else b"key-%d" % (number % 7)
        future = producer.send(topic, body, key=key)
        future.add_callback(lambda _metadata, body=body: os.write(accepted, body + b"\n"))
        number += 1
        time.sleep(0.0005)


def main(address: str, topic: str, folder: str) -> None:
    """Fork a process for each line."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                live(address, topic, Path(folder), line.strip())
            finally:
                os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
