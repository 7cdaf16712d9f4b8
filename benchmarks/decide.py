"""What a decision costs, in microseconds a call, beside `limits` and `aiolimiter`.

Everything here is admitted, but for the line that says otherwise: that is the way of most
messages. A run is the best of several short loops, because whatever disturbs a loop of pure
Python only makes it longer; the value is the median of the runs. The garbage collector is off in
the loops, as in `timeit`: verdicts hold no cycles and leave nothing to it.

`limits` keeps one entry for each hit of a moving window in a list that it inserts into at the
front; its storage is emptied before every loop, so that it is not charged for a long history.
Both of its lines, and aiolimiter's, read the clock in each call. So does `Shield.admit`, once
for all policies; a policy is given the time, so a line with the clock stands beside that without.

An answer is put down by `settle` and picked up by the next `admit`, so of those two lines each has
a part of the other's work; what counts is the line that has both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import limits
from aiolimiter import AsyncLimiter
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from benchmarks.measure import (
    Effort,
    Noise,
    Report,
    Result,
    interleave,
    median_of_pairs,
    no_collector,
    result_of,
    versions_of,
)
from shield import End, Message, Outcome, OverLimit, Permit, Shield

Loop = Callable[[int], float]
"""Does something so many times; returns the seconds it took."""

TARGET = "three policies, admit + settle below 2 us; one quota alone below 0.6 us"
THREE = "three policies: admit + settle"
ALONE = "one quota alone: check + take"
WITH_CLOCK = "one quota alone, and its clock"
PEER = "limits, fixed window: hit"
REFUSED = "one quota: admit refused + end"

QUOTA = {"rate": "1000000000/s", "per": "producer"}
BYTES = {"rate": "1000000MiB/s", "per": "destination"}
BOUND = {"messages": 10_000, "bytes": "64MiB"}


def run(effort: Effort) -> Report:
    """Measure every line in turns."""
    loops = effort.of(20_000, 500)
    best_of = effort.of(5, 1)
    lines = all_loops()
    noise = Noise()
    runs = interleave(
        {name: partial(_best_us, loop, loops, best_of) for name, loop in lines.items()},
        effort.runs_of(15, 2),
        noise,
        "decide",
    )
    results = {name: result_of(name, values, "us") for name, values in runs.items()}
    results[THREE].aims(results[THREE].value, below=2.0)
    results[ALONE].aims(results[ALONE].value, below=0.6)
    for name in lines:
        _compare(results[name], runs[PEER], runs[name])
    ratio = results[WITH_CLOCK].ratio
    assert ratio is not None
    return Report(
        name="decide",
        results=list(results.values()),
        ratio=ratio,
        ratio_of=f"how many times faster than '{PEER}' is '{WITH_CLOCK}'",
        target=TARGET,
        noise=noise.relative,
        versions=versions_of("limits", "aiolimiter"),
    )


def _compare(result: Result, peer: list[float], own: list[float]) -> None:
    if result.name != PEER:
        result.ratio = median_of_pairs(peer, own)
        result.ratio_to = PEER


def _best_us(loop: Loop, loops: int, best_of: int) -> float:
    with no_collector():
        return min(loop(loops) for _ in range(best_of)) / loops * 1e6


def all_loops() -> dict[str, Loop]:
    """Return every line by its name."""
    one = _shield(quota=QUOTA)
    three = _shield(quota=[QUOTA, BYTES], in_flight=BOUND)
    none = Shield({"shield": {"producer": "bench"}})
    over = _shield(quota={"rate": "1/d", "burst": 1})
    over.admit(_message())
    return {
        ALONE: _policy_alone(one),
        WITH_CLOCK: _policy_with_clock(one),
        "no rule: admit + settle": _admit_and_settle(none),
        "one quota: admit + settle": _admit_and_settle(one),
        THREE: _admit_and_settle(three),
        "three policies: admit": _in_batches(three, admitting=True),
        "three policies: settle": _in_batches(three, admitting=False),
        "making the Message": _make_messages,
        REFUSED: _refused(over),
        PEER: _limits(FixedWindowRateLimiter),
        "limits, moving window: hit": _limits(MovingWindowRateLimiter),
        "aiolimiter: acquire": _aiolimiter,
    }


def _shield(**policies: Any) -> Shield:
    rule = {"name": "bench", "match": "orders.*", "over_limit": ["drop"], **policies}
    return Shield({"shield": {"producer": "bench"}, "rules": [rule]})


def _message() -> Message:
    return Message("orders.created", 1024, "bench", b"42", None)


# --- Shield ---------------------------------------------------------------------------------------


def _policy_alone(shield: Shield) -> Loop:
    policy = shield.rules[0].policies[0]
    check, take, message = policy.check, policy.acquire, _message()

    def loop(loops: int) -> float:
        now = time.monotonic()
        begun = time.perf_counter()
        for _ in range(loops):
            if check(message, now) is None:
                take(message, now)
        return time.perf_counter() - begun

    return loop


def _policy_with_clock(shield: Shield) -> Loop:
    policy = shield.rules[0].policies[0]
    check, take, message, clock = policy.check, policy.acquire, _message(), time.monotonic

    def loop(loops: int) -> float:
        begun = time.perf_counter()
        for _ in range(loops):
            now = clock()
            if check(message, now) is None:
                take(message, now)
        return time.perf_counter() - begun

    return loop


def _admit_and_settle(shield: Shield) -> Loop:
    admit, message, delivered = shield.admit, _message(), Outcome.DELIVERED

    def loop(loops: int) -> float:
        begun = time.perf_counter()
        for _ in range(loops):
            permit = admit(message)
            permit.settle(delivered)  # type: ignore[union-attr]
        return time.perf_counter() - begun

    return loop


def _in_batches(shield: Shield, *, admitting: bool) -> Loop:
    """Admit many, then settle them, and time one of the two; the bound allows 10,000 at once."""

    def loop(loops: int) -> float:
        total_s, left = 0.0, loops
        while left:
            messages = [_message() for _ in range(min(left, 1000))]
            left -= len(messages)
            begun = time.perf_counter()
            permits = list(map(shield.admit, messages))
            between = time.perf_counter()
            for permit in permits:
                assert isinstance(permit, Permit)
                permit.settle(Outcome.DELIVERED)
            ended = time.perf_counter()
            total_s += between - begun if admitting else ended - between
        return total_s

    return loop


def _make_messages(loops: int) -> float:
    begun = time.perf_counter()
    for _ in range(loops):
        Message("orders.created", 1024, "bench", b"42", None)
    return time.perf_counter() - begun


def _refused(shield: Shield) -> Loop:
    admit, message, dropped = shield.admit, _message(), End.DROPPED

    def loop(loops: int) -> float:
        begun = time.perf_counter()
        for _ in range(loops):
            over = admit(message)
            assert type(over) is OverLimit
            over.end(dropped)
        return time.perf_counter() - begun

    return loop


# --- the peers ------------------------------------------------------------------------------------


def _limits(strategy: Callable[[MemoryStorage], Any]) -> Loop:
    storage = MemoryStorage()
    hit, item = strategy(storage).hit, limits.RateLimitItemPerSecond(1_000_000_000)

    def loop(loops: int) -> float:
        total_s, left = 0.0, loops
        while left:
            storage.reset()
            some = min(left, 500)
            left -= some
            begun = time.perf_counter()
            for _ in range(some):
                hit(item, "bench")
            total_s += time.perf_counter() - begun
        return total_s

    return loop


def _aiolimiter(loops: int) -> float:
    async def acquire_all() -> float:
        limiter = AsyncLimiter(1_000_000_000, 1)
        acquire = limiter.acquire
        begun = time.perf_counter()
        for _ in range(loops):
            await acquire()
        return time.perf_counter() - begun

    return asyncio.run(acquire_all())
