"""Messages over the limit that wait for their turn, each with a place among all who wait."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from shield.engine.core import Component, Core
from shield.engine.queueing.wait_queue import BEHIND, LAST, Waiter, wake_all
from shield.events import Kind
from shield.message import Message
from shield.policy import Policy
from shield.verdict import OverLimit, Permit, Refusal, Verdict


class Waiting(Component):
    """The wait queues, for single messages that wait and for queues of them."""

    def line_up(self, over: OverLimit, wake: Callable[[], None]) -> Waiter:
        """Give an over-limit message its number and its place in the refusing policy's line."""
        waiter = Waiter(over, LAST, wake)
        try:
            with self._core.lock:
                waiter.number = self._core.lines.draw()
                self._core.lines.stand(waiter, over.refusal.policy)
        except BaseException:
            self.leave(waiter)  # or nobody who stands behind it would ever have a turn
            raise
        return waiter

    def line_up_behind(self, over: OverLimit, wake: Callable[[], None]) -> Waiter:
        """Let a message wait for what all others leave, also those who come later."""
        waiter = Waiter(over, BEHIND, wake)
        try:
            with self._core.lock:
                self._core.lines.stand(waiter, over.refusal.policy)
        except BaseException:
            self.leave(waiter)
            raise
        return waiter

    def ask_again(self, waiter: Waiter, now: float | None = None) -> Permit | float:
        """Return a Permit if the waiter's turn has come, else the seconds after which to ask again.

        `inf` means: when woken. A waiter that has its permit is out of the line.
        """
        answer = self.ask_and_stay(waiter, now)
        if isinstance(answer, Permit):
            self.leave(waiter)
        return answer

    def ask_and_stay(self, waiter: Waiter, now: float | None = None) -> Permit | float:
        """Do the same, but who has its permit stays in line until it leaves, or moves on.

        So nobody overtakes a message on its way from here to its client.
        """
        core, over = self._core, waiter.over
        with core.lock:
            verdict = _judge_again(core, over, waiter.number, now)
            if isinstance(verdict, Permit):
                woken: Iterable[Waiter] = ()
                answer: Permit | float = verdict
            else:
                woken = core.lines.stand(waiter, verdict.refusal.policy)
                answer = _next_try_s(core, waiter, verdict.refusal)
        wake_all(woken)
        _report_waited(core, over, answer)
        return answer

    def ask_once(self, over: OverLimit) -> Permit | None:
        """Return a Permit if the policies admit a message that stands in no line, else None.

        It comes behind all who stand in one.
        """
        core = self._core
        with core.lock:
            verdict = _judge_again(core, over, BEHIND)
        answer = verdict if isinstance(verdict, Permit) else None
        _report_waited(core, over, answer)
        return answer

    def let_through(self, over: OverLimit) -> Permit | None:
        """Admit a message all the same, and charge it: there is nothing else to be done with it.

        None where a policy fails at that, and plugins must not fail.
        """
        core = self._core
        with core.lock:
            verdict = core.judge.take(over.flow, over.message, core.now())
            answer = verdict if isinstance(verdict, Permit) else None
            over.open = over.open and answer is None
        _report_waited(core, over, answer)
        return answer

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out of its line."""
        with self._core.lock:
            woken = self._core.lines.leave(waiter)
        wake_all(woken)

    # A queue of messages that compete for the same has one waiter, which stands for its first.

    def draw(self) -> int:
        """Return the number of a message that joins a queue: its place among all who wait."""
        with self._core.lock:
            return self._core.lines.draw()

    def move_on(self, waiter: Waiter, over: OverLimit, number: float) -> None:
        """Let a queue's waiter stand for the next of its messages, in the line where it stands."""
        lines = self._core.lines
        with self._core.lock:
            policy = over.refusal.policy if waiter.line is None else waiter.line[0]
            woken = lines.leave(waiter)
            waiter.over, waiter.number = over, number
            lines.stand(waiter, policy)
        wake_all(woken)

    def competes_for(self, over: OverLimit) -> Hashable:
        """Return what a message waits for: those that agree in it can wait one behind another."""
        return _lines_of(self._core, over.flow.lined, over.message)

    def bond(self, over: OverLimit) -> Hashable:
        """Return what binds a message to others, which it must not overtake; None for nothing."""
        if not over.flow.holders:
            return None
        lines = _lines_of(self._core, over.flow.holders, over.message)
        return lines if any(line is not None for line in lines) else None


def _judge_again(core: Core, over: OverLimit, number: float, now: float | None = None) -> Verdict:
    """Decide once more; where it is admitted, it is kept nowhere any more."""
    core.pick_up_answers()
    now = core.now() if now is None else now
    account, kept_as = over.flow.account, over.kept_as
    left = 0 if kept_as is None else getattr(account, kept_as) - 1
    verdict = core.judge.verdict_in_turn(over.flow, over.message, now, number)
    if verdict.admits:  # no call, so that nothing can strike before it is taken over
        over.open = False
        if kept_as is not None:
            account.in_flight += 1
            setattr(account, kept_as, left)
        core.claims.discard(over)
    else:
        over.refusal = verdict.refusal  # type: ignore[union-attr]
    return verdict


def _next_try_s(core: Core, waiter: Waiter, refusal: Refusal) -> float:
    if refusal.retry_after_s is None or not core.lines.is_first(waiter):
        return float("inf")
    return refusal.retry_after_s


def _report_waited(core: Core, over: OverLimit, answer: object) -> None:
    if core.hooks.observers and isinstance(answer, Permit):
        core.hooks.report(Kind.WAITED, over.message, over)


def _lines_of(core: Core, policies: Iterable[Policy], message: Message) -> tuple[Hashable, ...]:
    with core.lock:
        return tuple(core.lines.of(policy, message)[1] for policy in policies)
