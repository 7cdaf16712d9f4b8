"""What the parts of a Shield share: one lock, and accounts, wait queues and answers under it."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shield.accounts import Account, Accounts, End
from shield.engine.answer_timeouts import AnswerTimeouts
from shield.engine.claims import WITHDRAWN, Begun, Claims
from shield.engine.evaluator import Evaluator
from shield.engine.hooks import Hooks
from shield.engine.policy_sets import PolicySets
from shield.engine.queueing.wait_queue import WaitQueues, wake_all
from shield.engine.reporting.refusal_log import RefusalLog
from shield.engine.spin_lock import SpinLock
from shield.errors import ShieldError
from shield.redriving.auto import AutoRedrive
from shield.verdict import DELIVERED, Applied, Engine, Outcome, OverLimit, Permit, Verdict

if TYPE_CHECKING:
    from shield.engine.policy_set import PolicySet
    from shield.message import Message
    from shield.rule import Rule

ASIDE = {End.BUFFERED, End.SPOOLED, End.OVERFLOWED}
"""The ends of what is only set aside: it may come back."""


class Core:
    """The state of one engine in one process; in a forked child it is reset.

    What the lock covers changes under it alone. Nothing calls plugins' hooks, or wakes who waits,
    while it holds it.
    """

    __slots__ = (
        "answers",
        "attempt",
        "auto",
        "books",
        "claims",
        "clock",
        "engine",
        "flows",
        "hooks",
        "insist",
        "judge",
        "lines",
        "lock",
        "now",
        "prepares_received",
        "prepares_sent",
        "received",
        "refusals",
        "release",
        "rules",
        "sent",
        "struck",
        "unanswered",
        "unlogged",
        "watched",
    )

    def __init__(self, engine: Engine, hooks: Hooks) -> None:
        self.engine = engine
        """Whose core it is, for what is handed an engine. Parts of the engine ask nothing of it."""
        self.clock, self.now = engine.clock, engine.clock.now
        self.hooks, self.watched, self.unlogged = hooks, hooks.watch, hooks.unlogged
        self.prepares_sent = hooks.prepares("publish")
        self.prepares_received = hooks.prepares("consume")

    def reset(self) -> None:
        """Begin with empty books, free locks and nothing in flight, by the engine's rules."""
        engine, hooks = self.engine, self.hooks
        self.rules: tuple[Rule, ...] = engine.rules
        self.lock = SpinLock()
        self.attempt, self.insist = self.lock.acquire, self.lock.insist
        self.release = self.lock.release
        self.books = Accounts()
        self.lines = WaitQueues(hooks.failed, fail_open=hooks.fail_open)
        self.claims = Claims()
        """All verdicts that are open."""
        self.answers: deque[Any] = deque()  # of Permit, or Begun
        """Permits that clients have answered as delivered, not yet picked up."""
        self.struck = False
        """Whether an exception from outside has ever struck here: then owners may be gone."""
        self.refusals = RefusalLog(self.books, self.lock, self.now, hooks.unlogged)
        self.judge = Evaluator(self.lines, hooks, self.refusals, self.claims, self.take_stock)
        self.sent, self.received = PolicySets("publish", self), PolicySets("consume", self)
        self.flows = {"publish": self.sent, "consume": self.received}
        self.auto = AutoRedrive(engine)
        self.unanswered = AnswerTimeouts(engine.settings.answer_within)
        """What transports and keepers have not answered for."""

    def flow_of(self, message: Message) -> PolicySet:
        """Return all that applies to a message; not under the lock."""
        return self.flows[message.direction][message.producer, message.destination]

    def all_flows(self) -> list[PolicySet]:
        """Return those of all messages so far."""
        return [*self.sent.recent(), *self.received.recent()]

    def look(self) -> None:
        """Make the books those of this moment: all answers picked up, what is lost given back.

        Takes the lock itself.
        """
        self.refuse_itself()
        with self.lock:
            self.pick_up_answers()
            woken = self.lines.first() if self.take_stock() else []
        wake_all(woken)

    def catch_up(self) -> None:
        """Pick up the answers that wait, and let those who stand first in line ask again.

        Takes the lock itself.
        """
        with self.lock:
            self.pick_up_answers()
            woken = self.lines.first_released()
        wake_all(woken)

    def refuse_itself(self) -> None:
        """Refuse a plugin that asks its own Shield in the midst of a decision.

        Raises:
            ShieldError: this thread holds the lock: the books are not in order.
        """
        if self.lock._is_owned():  # type: ignore[attr-defined] # as threading.Condition asks
            raise ShieldError(
                "a plugin asks its own Shield from inside a method that decides for it: its "
                "ledger, pressure and status can be asked for in hooks, not in a policy's methods"
            )

    def let_go_of_lock(self) -> None:
        """Release the lock where this thread holds it: an exception may have struck before."""
        with suppress(RuntimeError):
            self.release()

    def signals_changed(self) -> None:
        """Let those ask again whom a signal lets in; those who wait for answers, where some came.

        A client's I/O thread says so at each turn of its loop.
        """
        with self.lock:
            answered = bool(self.answers)
            self.pick_up_answers()
            lines = self.lines
            woken = lines.first_released() if answered else lines.first_listening()
        wake_all(woken)

    # --- under the lock -----------------------------------------------------------------------

    # An exception from outside may strike after any call, and where a loop begins again; what
    # stands between is executed together. So what belongs together stands behind all calls, and
    # what was begun is gone on with by who comes next.

    def pick_up_answers(self, now: float | None = None) -> None:
        """Settle what clients have answered as delivered, and what was begun and not ended."""
        answers = self.answers
        if now is None:
            now = self.now()
        done, permit = 0, None
        try:
            while answers:
                done, permit = 0, answers[0]
                if permit.open:
                    flow, message = permit.flow, permit.message
                    for settle in flow.settles:  # as `conclude`, without its call
                        try:
                            settle(message, DELIVERED, now)
                        except Exception as error:
                            self.hooks.failed(settle, error)
                        done += 1
                    if flow.holders:
                        self.let_go(flow, message, End.DELIVERED)
                    self.claims.discard(permit)
                    account, messages = flow.account, message.messages
                    permit.open = False
                    account.in_flight -= messages
                    account.delivered += messages
                elif permit.open is None:
                    permit.go_on(self, now)
                answers.popleft()
        except BaseException:
            if permit is not None and permit.open:
                answers[0] = Begun(permit, DELIVERED, End.DELIVERED, done)
            self.struck = True
            raise

    def conclude(
        self, permit: Permit, outcome: Outcome | None, end: str | None, now: float, done: int = 0
    ) -> None:
        """Release what an open permit holds, and count its end, or leave that open.

        Args:
            permit: from now on nobody else can settle it.
            outcome: what policies learn; None where its send never began, so that they give back
                what they have charged.
            end: where the ledger counts it; None where it stays in flight, WITHDRAWN as if it had
                never been offered.
            now: in monotonic seconds.
            done: how many policies have done their part before this was interrupted.
        """
        flow, message = permit.flow, permit.message
        permit.held = False
        try:
            if outcome is None:
                for give_back in flow.give_backs[done:]:
                    try:
                        give_back(message)
                    except Exception as error:
                        self.hooks.failed(give_back, error)
                    done += 1
            else:
                for settle in flow.settles[done:]:
                    try:
                        settle(message, outcome, now)
                    except Exception as error:
                        self.hooks.failed(settle, error)
                    done += 1
            if end is not None and flow.holders:
                self.let_go(flow, message, end)
            self.claims.discard(permit)
            if end is None:
                permit.open = False
            elif end is WITHDRAWN:
                account, messages = flow.account, message.messages
                permit.open = False
                account.offered -= messages
                account.in_flight -= messages
            else:
                flow.account.end(permit, "in_flight", end, message.messages)
        except BaseException:
            if permit.open:
                self.answers.appendleft(Begun(permit, outcome, end, done))
            self.struck = True
            raise

    def end(self, over: OverLimit, end: End) -> None:
        """Count the end of an open message over the limit."""
        self.let_go(over.flow, over.message, end)
        if end is End.DROPPED:
            over.flow.account.has_dropped(over.refusal.key)
        over.flow.account.end(over, over.kept_as or "in_flight", end)
        self.claims.discard(over)

    def let_go(self, flow: Applied, message: Message, end: str) -> None:
        """Tell policies that a message is aside no more; where it has only moved, it still is."""
        if message.aside and end not in ASIDE:
            for on_returned in flow.on_returned:
                try:
                    on_returned(message)
                except Exception as error:
                    self.hooks.failed(on_returned, error)
                message.aside = False
            message.aside = False

    def undo(self, verdict: Verdict | None, account: Account | None, messages: int) -> None:
        """Take an offer back that an exception from outside has struck: it has failed."""
        self.struck = True
        if isinstance(verdict, Permit):
            self.engine.cancel(verdict)
        elif verdict is not None:
            self.engine.end(verdict, End.FAILED)
        elif account is not None:
            with self.lock:
                account.move("in_flight", End.FAILED, messages)

    def take_stock(self) -> bool:
        """Release what has lost its owner, once an exception from outside has struck; tell of it.

        Not before: who only wants to know whether a message would be admitted may drop a permit.
        """
        if not self.struck:
            return False
        waiters, claims = self.lines.lost(), self.claims.lost()
        for waiter in waiters:
            self.lines.leave(waiter)
        for claim in claims:
            if not claim.open:
                self.claims.discard(claim)
            elif isinstance(claim, OverLimit):
                self.end(claim, End.FAILED)
            else:
                self.conclude(claim, Outcome.FAILED, End.FAILED, self.now())
        return bool(waiters or claims)


class Component:
    """A part of what a Shield can do. All it knows of the rest is the core."""

    _core: Core

    def __init__(self, core: Core) -> None:
        self._core = core
