"""Instructions of one message, with and without Shield: what a small change costs is seen here.

Times on a shared machine vary by more than most changes matter; the instructions that a processor
executes for the same Python code do not: two runs differ by less than 1 %. They are counted over a
whole child process, for few loops and for many; the difference, divided, is what one loop took, and
start-up falls out of it. Counted in user space, by `perf stat` where the processor's counters can
be read, else by valgrind's callgrind, which executes the process about fifty times slower.

The Kafka is librdkafka's mock cluster, in the parent; the producer's own thread rests, so what is
counted is the call of `send`. Answers are in the lines of the core.

To hold a change against the commit before: `--json` in both checkouts, on one machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from benchmarks import decide, instructed
from benchmarks.measure import Effort, Noise, Report, Result, interleave, result_of, versions_of
from shield import ShieldError
from shield_kafka.demo.embedded import EmbeddedKafka

FEW = 200
LIMIT_S = 600
PEERS = {
    instructed.KAFKA: instructed.KAFKA_BARE,
    instructed.KAFKA_HEADERS: instructed.KAFKA_HEADERS_BARE,
    instructed.KAFKA_REFUSED: instructed.KAFKA_BARE,
}
CORE = ("no rule: admit + settle", "one quota: admit + settle", decide.THREE, decide.REFUSED)

Counter = Callable[[list[str]], int]
"""Runs a command; returns how many instructions it took in user space."""


def run(effort: Effort) -> Report:
    """Count every line, few times: the counts hardly differ."""
    word, counter = counter_of_this_machine()
    noise, cluster = Noise(), EmbeddedKafka()
    many = effort.of(2_000, 300)
    lines = (*CORE, *instructed.CLIENTS)
    counts = interleave(
        {name: partial(_per_loop, counter, name, cluster.bootstrap, many) for name in lines},
        effort.runs_of(1, 1),
        noise,
        "instructions",
    )
    results = {name: result_of(name, values, "instructions") for name, values in counts.items()}
    for name, peer in PEERS.items():
        _compare(results[name], results[peer])
    ratio = results[instructed.KAFKA].ratio
    assert ratio is not None
    return Report(
        name="instructions",
        results=list(results.values()),
        ratio=ratio,
        ratio_of=f"'{instructed.KAFKA}' over '{instructed.KAFKA_BARE}'",
        target="none of its own: an admitted message at most 2 % above the commit before",
        noise=noise.relative,
        versions=versions_of("kafka-python"),
        notes=[f"counted by {word}; the mock cluster, no broker"],
    )


def _compare(result: Result, peer: Result) -> None:
    result.ratio, result.ratio_to = result.value / peer.value, peer.name


def _per_loop(counter: Counter, name: str, address: str, many: int) -> float:
    few, all_ = (counter(_child(name, times, address)) for times in (FEW, FEW + many))
    return (all_ - few) / many


def _child(name: str, times: int, address: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.instructed", name, str(times), address]


# --- the counters ---------------------------------------------------------------------------------


def counter_of_this_machine() -> tuple[str, Counter]:
    """Return the name of what counts here, and it.

    Raises:
        ShieldError: there is neither; it says what to install.
    """
    if shutil.which("perf") and _perf_counts():
        return "perf stat", _by_perf
    if shutil.which("valgrind"):
        return "valgrind --tool=callgrind", _by_callgrind
    raise ShieldError(
        "nothing here counts instructions: allowed is `perf` on a processor whose counters can be "
        "read, or valgrind (apt-get install valgrind)"
    )


def _perf_counts() -> bool:
    try:
        return _by_perf(["true"]) > 0
    except ShieldError:
        return False


def _by_perf(command: list[str]) -> int:
    said = _said_by("perf", "stat", "-x,", "-e", "instructions:u", *command)
    return _number(said, r"^(\d+),[^,]*,instructions:u", "perf")


def _by_callgrind(command: list[str]) -> int:
    said = _said_by("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command)
    return _number(said, r"Collected : (\d+)", "callgrind")


def _said_by(*command: str) -> str:
    """Run a child whose hashes, and so whose instructions, are the same each time."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    try:
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        raise ShieldError(f"{' '.join(command)} failed: {error.stderr[-2000:]}") from None
    return ran.stderr


def _number(said: str, pattern: str, counter: str) -> int:
    if not (found := re.search(pattern, said, re.MULTILINE)):
        raise ShieldError(f"{counter} counted nothing: it said {said[-500:]!r}")
    return int(found[1])
