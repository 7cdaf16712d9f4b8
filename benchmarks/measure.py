"""How every benchmark measures: interleaved runs, medians, and the machine's own noise beside them.

The sides of a comparison take turns (A B, B A, A B, ...), so that what else the machine does, and
what it does to its clock, falls on all of them alike. Between the turns a fixed piece of work is
timed; what that varies by is the machine's noise, and no difference below it means anything.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.progress import Progress

CALIBRATION_LOOPS = 200_000

Side = Callable[[], float]
"""One run of one side; returns what is compared, such as messages a second."""

stderr = Console(stderr=True)


@dataclass(frozen=True)
class Effort:
    """How long to measure: `quick` is a look, not a result; `runs` replaces a benchmark's own."""

    runs: int | None = None
    quick: bool = False

    def of(self, full: int, quick: int) -> int:
        """Return a size that depends on the effort alone."""
        return quick if self.quick else full

    def runs_of(self, full: int, quick: int) -> int:
        """Return the number of runs."""
        return self.runs or self.of(full, quick)


@dataclass
class Result:
    """One line of a report. `spread` is the interquartile range of the runs over their median."""

    name: str
    value: float
    unit: str
    spread: float | None = None
    ratio: float | None = None
    ratio_to: str | None = None
    target: str | None = None
    reached: bool | None = None
    runs: list[float] = field(default_factory=list)

    def aims(self, value: float | None, *, at_least: float = 0.0, below: float = 0.0) -> Result:
        """Set the line's target: `value` is to be at least, or below, so much."""
        assert value is not None
        self.target = f">= {at_least:g}" if at_least else f"< {below:g}"
        self.reached = value >= at_least if at_least else value < below
        return self


@dataclass
class Report:
    """What a benchmark found. `ratio` is the comparison that the target, or the name, is about."""

    name: str
    results: list[Result]
    ratio: float
    ratio_of: str
    target: str
    noise: float
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        """Whether every line that has a target reached it."""
        return all(result.reached for result in self.results if result.target)

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**asdict(self), "reached": self.reached}


class Noise:
    """Times the same fixed work again and again; says by how much the machine varies."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def sample(self) -> None:
        """Time it once more: some ten milliseconds."""
        begun = time.perf_counter()
        total = 0
        for number in range(CALIBRATION_LOOPS):
            total += number & 7
        self._times.append(time.perf_counter() - begun)

    @property
    def relative(self) -> float:
        """The interquartile range of those times over their median."""
        return spread_of(self._times)


def spread_of(values: Sequence[float]) -> float:
    """Return the interquartile range over the median; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle if middle else 0.0


def result_of(name: str, values: Sequence[float], unit: str) -> Result:
    """Return the line for the runs of one side."""
    return Result(name, statistics.median(values), unit, spread_of(values), runs=list(values))


def interleave(
    sides: Mapping[str, Side], runs: int, noise: Noise, title: str
) -> dict[str, list[float]]:
    """Run every side `runs` times, in turns that change their order each time."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    with _progress(title, runs * len(names)) as advance:
        for number in range(runs):
            for name in names if number % 2 == 0 else reversed(names):
                noise.sample()
                values[name].append(sides[name]())
                advance()
    return values


def median_of_pairs(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median of the ratios of runs that stood side by side."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    with Progress(console=stderr, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the garbage collector out of a timed loop, as `timeit` does; collect before it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def versions_of(*distributions: str) -> dict[str, str]:
    """Return the versions that took part, and what they ran on."""
    found = {name: version(name) for name in ("broker-shield", *distributions)}
    python = f"{platform.python_implementation()} {platform.python_version()}"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {**found, "python": python, "machine": machine}
