"""What the rooms of a Shield share: one lock, and the books, lines and answers under it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from shield.auto import AutoRedrive
from shield.brief_lock import BriefLock
from shield.hooks import Hooks
from shield.ledger import Books, End
from shield.lines import Lines, wake_all
from shield.refusals import Refusals
from shield.rooms.flows import Flows
from shield.rooms.judge import Judge
from shield.verdict import DELIVERED, Permit

if TYPE_CHECKING:
    from shield.flow import Flow
    from shield.message import Message
    from shield.shield import Shield

ASIDE = {End.BUFFERED, End.SPOOLED, End.OVERFLOWED}
"""The ends of what is only set aside: it may come back."""


class Core:
    """The state of one Shield in one process; a forked child makes itself another.

    What the lock covers changes under it alone. Nothing calls plugins' hooks, or wakes who waits,
    while it holds it.
    """

    __slots__ = (
        "answers",
        "attempt",
        "auto",
        "books",
        "clock",
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
        "shield",
        "unlogged",
        "watched",
    )

    def __init__(self, shield: Shield, hooks: Hooks) -> None:
        self.shield = shield
        """Whose core it is, for those that are handed a Shield. Rooms ask nothing of it."""
        self.rules = shield.rules
        self.clock, self.now = shield.clock, shield.clock.now
        self.hooks, self.watched, self.unlogged = hooks, hooks.watch, hooks.unlogged
        self.prepares_sent = hooks.prepares("publish")
        self.prepares_received = hooks.prepares("consume")
        self.lock = BriefLock()
        self.attempt, self.insist = self.lock.attempt, self.lock.insist
        self.release = self.lock.release
        self.books = Books()
        self.lines = Lines(hooks.failed, fail_open=hooks.fail_open)
        self.answers: deque[Permit] = deque()
        """Permits that clients have answered as delivered, not yet picked up."""
        self.refusals = Refusals(self.books, self.lock, self.now, hooks.unlogged)
        self.judge = Judge(self.lines, hooks, self.refusals)
        self.sent, self.received = Flows("publish", self), Flows("consume", self)
        self.flows = {"publish": self.sent, "consume": self.received}
        self.auto = AutoRedrive(shield)

    def flow_of(self, message: Message) -> Flow:
        """Return all that applies to a message; not under the lock."""
        return self.flows[message.direction][message.producer, message.destination]

    def all_flows(self) -> list[Flow]:
        """Return those of all messages so far."""
        return [*self.sent.values(), *self.received.values()]

    def catch_up(self) -> None:
        """Pick up the answers that wait, and let those who stand first in line ask again.

        Takes the lock itself.
        """
        with self.lock:
            self.pick_up_answers()
            woken = self.lines.first_released()
        wake_all(woken)

    # --- under the lock -----------------------------------------------------------------------

    def pick_up_answers(self, now: float | None = None) -> None:
        """Settle what clients have answered as delivered."""
        answers = self.answers
        if now is None:
            now = self.now()
        while answers:
            permit = answers.popleft()
            if not permit.open:
                continue
            permit.open = False
            flow, message = permit.flow, permit.message
            for settle in flow.settles:  # `Hooks.tell`, without its call
                try:
                    settle(message, DELIVERED, now)
                except Exception as error:
                    self.hooks.failed(settle, error)
            account = flow.account
            messages = message.messages
            account.in_flight -= messages
            account.delivered += messages
            if flow.holders:
                self.let_go(flow, message, End.DELIVERED)

    def close(self, permit: Permit) -> bool:
        """Take a permit out of everybody's hands; False where it has had its end already."""
        if self.answers:
            self.pick_up_answers()
        if not permit.open:
            return False
        permit.held = permit.open = False
        return True

    def give_back(self, permit: Permit) -> None:
        """Undo what policies charged for a message whose send never began."""
        self.hooks.tell(permit.flow.give_backs, permit.message)

    def let_go(self, flow: Flow, message: Message, end: End) -> None:
        """Tell policies that a message is aside no more; where it has only moved, it still is."""
        if message.aside and end not in ASIDE:
            message.aside = False
            self.hooks.tell((p.let_go for p in flow.holders), message)


class Room:
    """A part of what a Shield can do. All it knows of the rest is the core."""

    _core: Core

    def __init__(self, core: Core) -> None:
        self._core = core
