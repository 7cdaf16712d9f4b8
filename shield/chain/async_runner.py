"""Runs a chain for clients on an event loop: `shield.chain.runner`, where that blocks, awaited.

No thread waits, neither the loop's own nor one of a pool. A task that is cancelled while it waits
leaves its line, and its message is not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from math import isinf
from typing import TypeVar

from shield.accounts import End
from shield.action import Retry, Wait
from shield.chain.runner import in_line, pauses, walk
from shield.clients.pending import MessagePort
from shield.verdict import OverLimit, Permit

Result = TypeVar("Result")
LONGEST_S = 3600.0
"""A loop's timers are looked at again so often at least."""


class WakeUp:
    """An event of the running loop that any thread may set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self.clear = self._event.clear

    def ring(self) -> None:
        """Set it, from any thread; nothing where the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def heard(self, within_s: float = float("inf")) -> None:
        """Return when it is set, or the time is over."""
        seconds = LONGEST_S if isinf(within_s) else min(within_s, LONGEST_S)
        timer = self._loop.call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()


async def run_chain(over: OverLimit, port: MessagePort[Result], start: int = 0) -> Result | Permit:
    """Run the chain of the rule that refused; a Permit where the message is to be sent now.

    Raises:
        OverLimitError: the chain says so, or has run out.
    """
    steps = walk(over, port, lambda: True, start)
    with closing(steps):
        try:
            step = next(steps)
            while True:
                step = steps.send(await _wait(over, step))
        except StopIteration as end:
            result: Result | Permit = end.value
            return result
        except BaseException:
            over.end(End.FAILED)  # nothing where its end is known already
            raise


async def hold_back(permit: Permit) -> None:
    """Wait as long as policies ask an admitted message to; cancelled meanwhile, it is not sent."""
    if not permit.flow.delays or permit.delay_s <= 0.0:
        return
    try:
        await asyncio.sleep(permit.delay_s)
    except BaseException:
        permit.cancel()
        raise


async def _wait(over: OverLimit, step: Wait | Retry) -> Permit | None:
    bell = WakeUp()
    if isinstance(step, Wait):
        return await _drive(in_line(over, step.limit_s, bell.ring), bell)
    return await _drive(pauses(over, step.times), bell)


async def _drive(asking: Generator[float, None, Permit | None], bell: WakeUp) -> Permit | None:
    with closing(asking):
        try:
            while True:
                bell.clear()
                await bell.heard(next(asking))
        except StopIteration as end:
            permit: Permit | None = end.value
            return permit


async def until(
    attempt: Callable[[Callable[[], None]], bool | None],
    forget: Callable[[Callable[[], None]], None],
) -> bool:
    """Repeat an attempt until it says yes or no; it rings the bell that it is given once it may.

    `forget` is called with a bell that nobody hears any more.
    """
    bell = WakeUp()
    ring = bell.ring
    while (answer := attempt(ring)) is None:
        try:
            await bell.heard()
        except BaseException:
            forget(ring)
            raise
        bell.clear()
    return answer
