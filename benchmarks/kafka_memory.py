"""Memory while the broker stands still: 1,000,000 sends of 1 KB, shielded, against bare 200,000.

Each side is a process of its own, watched from outside (resident memory, twenty times a second).
It connects and sends a few messages, then the broker is frozen (SIGSTOP, or a paused container),
then it sends as fast as it can. The growth is the highest value less that before. The shielded
one has `in_flight = {messages = 10_000, bytes = "64MiB"}` and drops what is over it; afterwards
the broker runs on, what was in flight must arrive, and the ledger must account for every send.

kafka-python has no bound of its own: its growth goes on for as long as one sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.measure import (
    Effort,
    Noise,
    Report,
    Result,
    result_of,
    stderr,
    versions_of,
)
from benchmarks.stalled_sender import WARM_UP
from benchmarks.watched import MB, Child, Watch
from integration.brokers import KAFKA, Broker, create_topic, private

SIZE = 1024
BOUND = 10_000
ALLOWED_MB = BOUND * SIZE / MB + 50
SHIELDED, BARE = "shielded", "bare"


@dataclass
class Growth:
    """One side's run: how far its memory grew, and what it says of its sends."""

    peak_mb: float
    end_mb: float
    told: dict[str, Any]


def run(effort: Effort) -> Report:
    """Freeze a broker of our own under each side."""
    sends = {SHIELDED: effort.of(1_000_000, 30_000), BARE: effort.of(200_000, 6_000)}
    noise = Noise()
    growths: dict[str, list[Growth]] = {SHIELDED: [], BARE: []}
    with private(KAFKA) as broker:
        topic = create_topic(broker.address)
        for number in range(effort.runs_of(3, 1)):
            for side in (SHIELDED, BARE) if number % 2 == 0 else (BARE, SHIELDED):
                stderr.print(f"kafka_memory: {side}, {sends[side]:,} sends", style="dim")
                noise.sample()
                growths[side].append(_grow(broker, topic, side, sends[side]))
    shielded = _line(SHIELDED, sends, growths).aims(
        max(growth.peak_mb for growth in growths[SHIELDED]), below=ALLOWED_MB
    )
    bare = _line(BARE, sends, growths)
    shielded.ratio, shielded.ratio_to = bare.value / max(shielded.value, 0.1), BARE
    return Report(
        name="kafka_memory",
        results=[shielded, bare, *_details(growths)],
        ratio=shielded.ratio,
        ratio_of=f"growth of bare after {sends[BARE]:,} sends over that of shielded after "
        f"{sends[SHIELDED]:,}",
        target=f"growth below {ALLOWED_MB:.1f} MB in every run: 10,000 x 1 KB in flight + 50 MB",
        noise=noise.relative,
        versions=versions_of("kafka-python", "psutil"),
        notes=[_account(growths[SHIELDED][-1].told)],
    )


def _line(side: str, sends: dict[str, int], growths: dict[str, list[Growth]]) -> Result:
    peaks = [growth.peak_mb for growth in growths[side]]
    return result_of(f"{side}, {sends[side]:,} sends: growth at the most", peaks, "MB")


def _details(growths: dict[str, list[Growth]]) -> list[Result]:
    lines = []
    for side, runs in growths.items():
        end = [growth.end_mb for growth in runs]
        rate = [growth.told["sends"] / growth.told["seconds"] for growth in runs]
        lines.append(result_of(f"{side}: growth at the end", end, "MB"))
        lines.append(result_of(f"{side}: rate of sends", rate, "sends/s"))
    return lines


def _account(told: dict[str, Any]) -> str:
    frozen, after = told["frozen"], told["after"]
    return (
        f"ledger while frozen: {frozen['offered']:,} offered = {frozen['delivered']:,} delivered "
        f"before + {frozen['in_flight']:,} in flight + {frozen['dropped']:,} dropped; after the "
        f"broker ran on: {after['delivered']:,} delivered, {after['in_flight']:,} in flight"
    )


# --- one run ----------------------------------------------------------------------------------


def _grow(broker: Broker, topic: str, side: str, sends: int) -> Growth:
    """Run one side in a process of its own, with the broker frozen while it sends."""
    arguments = [side, broker.address, topic, str(sends), str(SIZE), str(BOUND)]
    with Child("benchmarks.stalled_sender", *arguments) as child:
        child.hear()  # it is connected, and has sent its warm-up
        broker.pause()
        try:
            with Watch(child.pid) as watch:
                child.say("go on")
                told = child.hear()
        finally:
            broker.resume()
        if side == SHIELDED:
            child.say("go on")
            told["after"] = child.hear()
            _prove_accounted(told)
    return Growth(watch.peak_mb, watch.last_mb, told)


def _prove_accounted(told: dict[str, Any]) -> None:
    """Every send has one end: what was not dropped has arrived."""
    frozen, after, offered = told["frozen"], told["after"], told["sends"] + WARM_UP
    sound = (
        frozen["balanced"]
        and after["balanced"]
        and frozen["offered"] == after["offered"] == offered
        and frozen["in_flight"] == min(BOUND, told["sends"])
        and after["in_flight"] == 0
        and after["delivered"] + after["dropped"] == offered
    )
    if not sound:
        raise AssertionError(f"{offered} were offered, and the ledger had {frozen}, then {after}")
