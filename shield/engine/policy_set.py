"""All that applies to the messages of one producer to one destination, compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shield.accounts import Account
from shield.capabilities import (
    BoundsInFlight,
    FollowsDiversion,
    LimitsSojourn,
    Paces,
    Queues,
    SeesOffers,
)
from shield.interrupts import is_from_outside
from shield.message import Message
from shield.policy import Policy
from shield.verdict import Engine, Outcome, Permit, Refusal

Check = Callable[[Message, float], Refusal | None]
Take = Callable[[Message, float], None]
Offer = Callable[[Message, float], None]
Follow = Callable[[Message], None]
GiveBack = Callable[[Message], None]
Delay = Callable[[Message, float], float]
Settle = Callable[[Message, Outcome, float], None]


class PolicySet:
    """Policies of all covering rules, in file order, as frozen tuples of callables; one account."""

    __slots__ = (
        "account",
        "bounded",
        "checks",
        "delays",
        "engine",
        "give_backs",
        "holders",
        "last",
        "lined",
        "offers",
        "on_diverted",
        "on_returned",
        "patient",
        "plain",
        "plain_message",
        "policies",
        "runs",
        "settles",
        "takes",
        "waits",
        "watched",
    )

    def __init__(
        self,
        engine: Engine,
        policies: Iterable[Policy],
        account: Account,
        *,
        watched: bool,
    ) -> None:
        self.engine = engine
        self.account = account
        self.watched = watched
        self.policies = tuple(policies)
        self.last: Message | None = None
        """The message offered last: pressure is that on messages like it."""
        own = self.policies
        self.offers: tuple[Offer, ...] = tuple(p.on_offer for p in own if isinstance(p, SeesOffers))
        self.checks: tuple[Check, ...] = tuple(p.check for p in self.policies)
        self.takes: tuple[Take, ...] = tuple(p.acquire for p in own if charges(p))
        self.delays: tuple[Delay, ...] = tuple(
            p.delay_s for p in own if isinstance(p, Paces) and not p.rule.shadow
        )
        self.settles: tuple[Settle, ...] = tuple(p.release for p in own if learns(p))
        self.give_backs: tuple[GiveBack, ...] = tuple(p.cancel for p in own if undoes(p))
        followers = [p for p in own if isinstance(p, FollowsDiversion)]
        self.holders: tuple[Policy, ...] = tuple(followers)
        """Those that want to know which messages are diverted."""
        self.on_diverted: tuple[Follow, ...] = tuple(p.on_diverted for p in followers)
        self.on_returned: tuple[Follow, ...] = tuple(p.on_returned for p in followers)
        self.lined: tuple[Policy, ...] = tuple(
            p for p in own if isinstance(p, Queues) and not isinstance(p, FollowsDiversion)
        )
        """Those in which messages may compete for different things."""
        sojourns = tuple(p for p in own if isinstance(p, LimitsSojourn))
        self.waits: tuple[Policy, ...] = () if self.holders else sojourns
        """Those that may refuse what waits in a queue of Shield's; none where it has its order."""
        self.patient = not watched and all(p.traits.deferred_settlement for p in own if learns(p))
        """Whether an answer may be picked up a little later, by who next takes the lock."""
        self.runs = all(p.traits.batchable for p in own)
        """Whether its policies can decide on a run of deliveries at once."""
        self.plain = self.runs and self.patient and not (self.offers or self.delays or self.holders)
        """Whether its messages can be told by their size alone, and settled many at once."""
        self.plain_message: Message
        """Stands for each of them in turn."""
        self.bounded = any(isinstance(p, BoundsInFlight) and not p.rule.shadow for p in own)
        """Whether a rule bounds what may be unanswered, so that a client needs no bound itself."""

    def admits(self, message: Message, now: float) -> bool:
        """Tell whether all policies do; False also where one raises, so that it is found out."""
        try:
            for check in self.checks:
                if check(message, now) is not None:
                    return False
        except Exception as error:
            if is_from_outside(error):
                raise
            return False
        return True

    def run(self, messages: int, size: int) -> Permit:
        """Return what so many plain messages, of so many bytes together, hold."""
        one = self.plain_message
        run = Message(one.destination, size, one.producer)
        run.messages = messages
        return Permit(self, run)

    def without(self, policies: set[Policy]) -> PolicySet:
        """Return this flow less the policies that a message passed unasked: they get no charge."""
        rest = (p for p in self.policies if p not in policies)
        return PolicySet(self.engine, rest, self.account, watched=self.watched)


def charges(policy: Policy) -> bool:
    """Tell whether it has an `acquire` of its own."""
    return type(policy).acquire is not Policy.acquire


def undoes(policy: Policy) -> bool:
    """Tell whether it has a `cancel` of its own."""
    return type(policy).cancel is not Policy.cancel


def learns(policy: Policy) -> bool:
    """Tell whether it has a `release` of its own."""
    return type(policy).release is not Policy.release
