"""Runs a chain for clients whose callers may be blocked: the thin synchronous shell."""

from __future__ import annotations

import threading
from typing import Protocol, TypeVar

from shield.action import Action, Divert, Drop, Raise, Step, Wait
from shield.ledger import End
from shield.verdict import OverLimit, Permit

Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")


class Outlet(Protocol[Result_co]):
    """What an adapter can do with one message; the chain says which."""

    def send(self, permit: Permit) -> Result_co:
        """Send where it was going; settle the permit when the client knows, also on errors."""
        ...

    def drop(self, over: OverLimit) -> Result_co:
        """Return the client's kind of result, marked as dropped."""
        ...

    def divert(self, over: OverLimit, step: Divert, position: int) -> Result_co | None:
        """Send to the step's destination, or return None where that cannot even begin.

        When the send has ended: call `step.done()`, then `over.end(End.OVERFLOWED)`, or go on
        with `react(over, outlet, position + 1)` where it failed.
        """
        ...

    def may_wait(self) -> bool:
        """Tell whether this thread may be blocked; a client's own I/O thread may not."""
        ...

    def error(self, over: OverLimit) -> Exception:
        """Return what to raise: an OverLimitError that this client's users catch already."""
        ...


def react(over: OverLimit, outlet: Outlet[Result], start: int = 0) -> Result:
    """Run the chain of the rule that refused, from one position on, to the message's end.

    Raises:
        OverLimitError: the chain says so, or has run out.
    """
    chain = over.rule.chain
    try:
        for position in range(start, len(chain)):
            step = _step(chain[position], over)
            if isinstance(step, Drop):
                over.end(End.DROPPED)
                return outlet.drop(over)
            if isinstance(step, Raise):
                break
            if isinstance(step, Wait) and outlet.may_wait():
                permit = wait_in_line(over, step.limit_s)
                if permit is not None:
                    return outlet.send(permit)
            if isinstance(step, Divert):
                result = outlet.divert(over, step, position)
                if result is not None:
                    return result
        over.end(End.RAISED)
        raise outlet.error(over)
    except BaseException:
        over.end(End.FAILED)  # nothing where its end is known already
        raise


def _step(action: Action, over: OverLimit) -> Step | None:
    """Ask an action; one that raises has declined, and is counted as a plugin's error."""
    try:
        return action.step(over)
    except Exception as error:
        over.shield.plugin_failed(action, error)
        return None


def wait_in_line(over: OverLimit, limit_s: float) -> Permit | None:
    """Wait for admission, first come, first served; None where it cannot come within `limit_s`."""
    if over.retry_after_s is not None and over.retry_after_s > limit_s:
        return None
    shield, clock = over.shield, over.shield.clock
    deadline = clock.now() + limit_s
    woken = threading.Event()
    waiter = shield.line_up(over, woken.set)
    try:
        while True:
            woken.clear()
            now = clock.now()
            answer = shield.ask_again(waiter, now)
            if isinstance(answer, Permit):
                return answer
            left_s = deadline - now
            if left_s <= 0 or left_s < answer < float("inf"):
                return None
            clock.wait(woken, min(answer, left_s))
    finally:
        shield.leave(waiter)
