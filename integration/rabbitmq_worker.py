"""One of several consumers that share a queue, in a process of its own, so that it can be killed.

`python -m integration.rabbitmq_worker URL QUEUE SETTINGS NOTES`: consumes under the settings, a
JSON, acknowledges five at a time, and appends the body of each message that it is handed to the
file, before anything else. On SIGTERM it closes its connection and prints its ledger.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import pika

from shield import Shield
from shield_rabbitmq import BlockingConnection

BATCH = 5
WORK_S = 0.001


def main(url: str, queue: str, settings: str, notes: str) -> None:
    """Consume until asked to end."""
    shield = Shield(json.loads(settings))
    connection = BlockingConnection(pika.URLParameters(url), shield=shield)
    channel = connection.channel()
    written = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    in_hand: list[int] = []
    most_in_hand = 0

    def handle(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        nonlocal most_in_hand
        os.write(written, body + b"\n")
        in_hand.append(method.delivery_tag)
        most_in_hand = max(most_in_hand, len(in_hand))
        time.sleep(WORK_S)
        if len(in_hand) == BATCH:
            acknowledge()

    def acknowledge() -> None:
        if in_hand:
            channel.basic_ack(max(in_hand), multiple=True)
            in_hand.clear()

    def end(*_: object) -> None:
        nonlocal going
        going = False

    going = True
    signal.signal(signal.SIGTERM, end)
    channel.basic_consume(queue, handle)
    while going:
        connection.process_data_events(0.1)
        if not shield.pressure() >= 1.0:
            acknowledge()
    acknowledge()
    connection.close()
    ledger = shield.ledger()
    print(json.dumps({**ledger.as_dict(), "most_in_hand": most_in_hand}))


if __name__ == "__main__":
    main(*sys.argv[1:])
