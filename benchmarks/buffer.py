"""A buffer of 1,000,000 waiting messages of 100 B: what each takes, and how fast they drain.

Each run is a process of its own, on a real Kafka. A bare kafka-python producer sends the messages
and flushes; then a policy shuts, a shielded producer sends as many, which are all buffered, and
the resident memory that they have taken is read. The policy opens, and the time until `flush`
returns is that of the drain, under `in_flight` of 10,000. All must arrive, and the ledger agree.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.buffered_sender import WARM_UP
from benchmarks.measure import (
    Effort,
    Noise,
    Report,
    median_of_pairs,
    result_of,
    stderr,
    versions_of,
)
from integration.brokers import KAFKA, create_topic, shared
from integration.reading import count

SIZE = 100
BARE, DRAIN = "bare send + flush", "drain"


def run(effort: Effort) -> Report:
    """Fill and drain a buffer, as often as the effort says."""
    messages = effort.of(1_000_000, 20_000)
    noise = Noise()
    told: list[dict[str, Any]] = []
    with shared(KAFKA) as broker:
        for number in range(effort.runs_of(3, 1)):
            stderr.print(f"buffer: run {number + 1}, {messages:,} messages", style="dim")
            noise.sample()
            told.append(_run(broker.address, messages))
    drains, bares = ([each[key] for each in told] for key in ("drain_per_s", "bare_per_s"))
    drain = result_of(f"{DRAIN}, admitted under in_flight", drains, "messages/s")
    drain.ratio, drain.ratio_to = median_of_pairs(drains, bares), BARE
    beside = [each["bytes_beside"] for each in told]
    return Report(
        name="buffer",
        results=[
            result_of(f"beside the payload, {messages:,} waiting", beside, "B/message"),
            result_of("into the buffer", [each["fill_per_s"] for each in told], "messages/s"),
            drain,
            result_of(BARE, bares, "messages/s"),
        ],
        ratio=drain.ratio,
        ratio_of=f"{DRAIN} over {BARE}, both until all is acknowledged",
        target="none set",
        noise=noise.relative,
        versions=versions_of("kafka-python", "psutil"),
    )


def _run(address: str, messages: int) -> dict[str, Any]:
    topic = create_topic(address)
    arguments = [address, topic, str(messages), str(SIZE)]
    command = [sys.executable, "-m", "benchmarks.buffered_sender", *arguments]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(child.stdout)
    prove(told, messages, count(address, topic) - messages - 2 * WARM_UP)
    return told


def prove(told: dict[str, Any], messages: int, arrived: int) -> None:
    """All were kept, and all arrived; AssertionError where not."""
    if not told["balanced"] or {told["kept"], told["delivered"], arrived} != {messages}:
        raise AssertionError(f"{messages} were sent, {arrived} arrived, and the sender had {told}")
