"""Verdicts and what follows them: a claim is open until the message's end is known, once."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from shield.accounts import End
from shield.engine_api import EngineApi
from shield.errors import OverLimitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shield.accounts import Account
    from shield.action import Action
    from shield.message import Message
    from shield.policy import Policy
    from shield.rule import Rule


class Applied(Protocol):
    """All that applies to a message, compiled (`shield.engine.policy_set.PolicySet`)."""

    @property
    def engine(self) -> Engine:
        """What decides, and where the verdict is settled."""

    account: Account
    policies: tuple[Policy, ...]
    takes: tuple[Callable[[Message, float], None], ...]
    delays: tuple[Callable[[Message, float], float], ...]
    settles: tuple[Callable[[Message, Outcome, float], None], ...]
    give_backs: tuple[Callable[[Message], None], ...]
    """Methods of its policies; of those that do something of their own there."""
    holders: tuple[Policy, ...]
    """Those that want to know which messages are diverted."""
    on_diverted: tuple[Callable[[Message], None], ...]
    on_returned: tuple[Callable[[Message], None], ...]
    """By these they hear of it, and that it is so no more."""
    lined: tuple[Policy, ...]
    """Those in which messages may compete for different things."""
    waits: tuple[Policy, ...]
    """Those that may refuse what waits in a queue of Shield's own."""
    patient: bool
    """Whether an answer may be picked up a little later."""
    bounded: bool
    """Whether a rule bounds what may be unanswered, so that a client needs no bound itself."""

    def without(self, policies: set[Policy]) -> Applied:
        """Return the same less some policies, which then are charged nothing."""


class Outcome(StrEnum):
    """How an admitted send ended; what the policies learn from."""

    DELIVERED = "delivered"
    OVERLOADED = "overloaded"
    """Timed out, nacked, refused by a full buffer or throttled: teaches the limits."""
    FAILED = "failed"
    """A bad message, a caller's cancel, a broken client: teaches nothing."""

    @property
    def end(self) -> End:
        """Where the ledger counts it."""
        return End.DELIVERED if self is Outcome.DELIVERED else End.FAILED


DELIVERED = Outcome.DELIVERED
"""By this name on the hot path: looking a member up in its enum takes 50 ns more (Python 3.11)."""


class Refusal:
    """One policy's no.

    Args:
        policy: who says it.
        reason: a few words, stable enough to count by.
        retry_after_s: seconds until it would admit the message; None where that is not a matter
            of time, `inf` where it never will.
    """

    __slots__ = ("policy", "reason", "retry_after_s")

    def __init__(self, policy: Policy, reason: str, retry_after_s: float | None) -> None:
        self.policy = policy
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is counted by: the rule's name, the policy's, the reason."""
        return self.policy.rule.name, self.policy.name, self.reason


class Permit:
    """What an admitted message holds until its fate is known; settled exactly once.

    One whose owner an exception from outside has taken away is settled (`shield.engine.claims`).
    """

    __slots__ = ("flow", "held", "hold_s", "message", "open")

    admits = True

    hold_s: float
    """Set where policies of its flow may ask for a delay; `delay_s` is there always."""

    def __init__(self, flow: Applied, message: Message) -> None:
        self.flow = flow
        self.message = message
        self.held = self.open = True

    @property
    def delay_s(self) -> float:
        """How long policies want it held back before it is sent: `chain.runner.hold_back`."""
        return self.hold_s if self.flow.delays else 0.0

    @property
    def waits(self) -> tuple[Policy, ...]:
        """The policies that may refuse it while it waits in a queue of Shield's own.

        Messages that agree in this may wait in one queue. What was set aside is not refused again.
        """
        return () if self.message.aside else self.flow.waits

    def delivered(self, _result: object = None) -> None:
        """Settle as delivered: the callback to hand to a client, from any thread.

        Takes no lock: the answer is put down, and whoever next takes the Shield's lock, to decide
        or to look, picks it up first. Only those who wait in line need it at once.
        """
        engine = self.flow.engine
        if not self.flow.patient:
            engine.settle(self, Outcome.DELIVERED, End.DELIVERED)
        elif self.held:
            self.held = False
            engine.answers.append(self)
            if engine.lines:
                engine.catch_up()

    def settle(self, outcome: Outcome) -> bool:
        """Give back what the send held and count its end; False where that had happened before."""
        if outcome is DELIVERED and self.flow.patient:
            was_held = self.held
            self.delivered()
            return was_held
        return self.flow.engine.settle(self, outcome, outcome.end)

    def answer(self, outcome: Outcome) -> bool:
        """Give back what the send held, and leave its end open: a transaction decides it later."""
        return self.flow.engine.settle(self, outcome, None)

    def waited(self, waited_s: float, now: float) -> Refusal | None:
        """Ask whether it may wait on in a queue where it stands first; None where it may."""
        return self.flow.engine.waited(self, waited_s, now)

    def refuse(self, refusal: Refusal) -> OverLimit | None:
        """Take it back: it was not sent, and is over the limit now; None where it has its end.

        What was charged is given back. `shield.chain.runner.resume_chain` runs its chain.
        """
        return self.flow.engine.refuse(self, refusal)

    def cancel(self) -> bool:
        """Settle a send that never began: what was charged is given back, the end is `failed`."""
        return self.flow.engine.cancel(self)

    def expired(self) -> bool:
        """Settle a send that comes too late to begin: as `cancel`, but the end is `dropped`."""
        return self.flow.engine.expired(self)


class OverLimit:
    """The verdict on a message that a rule refused; open until its chain has come to an end."""

    __slots__ = ("chain", "declined", "flow", "kept_as", "message", "open", "refusal")

    admits = False

    def __init__(self, flow: Applied, message: Message, refusal: Refusal) -> None:
        self.flow = flow
        self.message = message
        self.refusal = refusal
        self.chain = refusal.policy.rule.chain
        """The actions of the rule that refused first; who refuses later changes nothing in it."""
        self.open = True
        self.declined: dict[str, str] | None = None
        """Why actions of its chain have done nothing, by what settings call them."""
        self.kept_as: End | None = None
        """Where the ledger has it while it is set aside; None while it is in flight."""

    @property
    def engine(self) -> Engine:
        """What gave the verdict."""
        return self.flow.engine

    @property
    def rule(self) -> Rule:
        """The rule that refuses it now; the chain of the first that did is what acts."""
        return self.refusal.policy.rule

    @property
    def policy(self) -> str:
        """Name of the policy that refused."""
        return self.refusal.policy.name

    @property
    def reason(self) -> str:
        """What was exceeded."""
        return self.refusal.reason

    @property
    def retry_after_s(self) -> float | None:
        """Seconds until it would be admitted; None where unknown."""
        return self.refusal.retry_after_s

    def end(self, end: End | None) -> bool:
        """Count the message's end, or leave it open with None; False where it had one before."""
        return self.engine.end(self, end)

    def keep(self, where: End) -> bool:
        """Count it as kept there, until it is admitted or has its end; False where it has one."""
        return self.engine.keep([self], where)[0]

    def note_declined(self, action: Action, why: str) -> None:
        """Note why an action does nothing about it."""
        if self.declined is None:
            self.declined = {}
        place = action.destination
        self.declined[action.name if place is None else f"{action.name} {place}"] = why

    def error(self, kind: type[OverLimitError] = OverLimitError) -> OverLimitError:
        """Return what `raise` raises: `kind` is one that its client's users catch."""
        tried = tuple((self.declined or {}).items())
        return kind(self.rule.name, self.policy, self.reason, self.retry_after_s, tried)


Verdict = Permit | OverLimit
Engine = EngineApi[Permit, OverLimit, Refusal]
"""What decides, as chains, actions and redrives know it; `Shield.engine` is one."""
