"""`shed`: who is refused while the other policies of the rule say that it is too much."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf
from typing import Literal

from pydantic import Field, field_validator, model_validator

from shield import Message, Outcome, Policy, Refusal, Rule, StrictModel, Traits, hookimpl
from shield.capabilities import (
    BoundsInFlight,
    CarriesOver,
    Observable,
    Queues,
    Randomized,
    ReadsSignals,
    SeesOffers,
    SelectsVictims,
)
from shield.plugins.policies.shed.controller import ShareController
from shield.plugins.policies.shed.criticality import NAMES, RANKS, Criticality, level_of
from shield.plugins.policies.shed.deadline import seconds_of
from shield.plugins.policies.shed.levels import Levels
from shield.plugins.policies.shed.pace import Pace
from shield.plugins.policies.shed.place_count import PlaceCount
from shield.units import Share

Measure = Callable[[Message, float], float]

ASK_AGAIN_S = 0.1
"""When to ask again where only others know how long it lasts."""
FOR_PRIORITY = {"criticality", "header", "per", "above"}


class ShedSettings(StrictModel):
    """By what messages are told apart, and where that is written."""

    by: Literal["priority", "deadline"]
    """`priority` sheds the least critical first, `deadline` only what would be too late anyway."""
    criticality: Criticality = "critical"
    """That of messages which neither a plugin nor a header has labelled."""
    header: str = Field(default="shield-criticality", min_length=1)
    """The header that holds a message's criticality."""
    per: str = "key"
    """Whose messages are shed together within one criticality, as `per` of a quota."""
    above: Share = 0.5
    """The pressure of the rule's other policies from which the least critical are shed."""
    deadline_header: str = Field(default="shield-deadline", min_length=1)
    """The header that holds a message's deadline, in RFC 3339 or in epoch milliseconds."""

    @field_validator("above")
    @classmethod
    def _leaves_room(cls, above: float) -> float:
        if above >= 1:
            raise ValueError("there everything is refused already; allowed is less than 100%")
        return above

    @model_validator(mode="after")
    def _fit_together(self) -> ShedSettings:
        unused = sorted(self.model_fields_set & FOR_PRIORITY)
        if self.by == "deadline" and unused:
            raise ValueError(f'{", ".join(unused)}: allowed only with by = "priority"')
        return self


class Shed(Policy, SelectsVictims, SeesOffers, ReadsSignals, Queues, Observable, CarriesOver):
    """Chooses who is refused; how much is refused, the other policies of its rule say.

    With p the pressure of a policy (how near it is to refusing everyone), e its rejection share
    (what it would refuse by chance), and a = admitted / offered in the last half second:

        r = the larger of e and 1 - a * (1 - p) / (p - above); 0 while p <= above
        over the limit iff level < the r-quantile of the levels offered in the last 1000
        level = criticality (0 to 3) + a stable hash of the key, from 0 to 1

    So as much is shed as is too much, from the lowest level up, and the others seldom come to
    refuse by themselves. Halfway from `above` to the full pressure the part that is shed stays
    what it is, however much is offered; a pressure that differs corrects it (proportional and
    integral control; Hellerstein et al., "Feedback Control of Computing Systems", 2004). By the
    pressure alone it would have to be near 1 for most to be shed, and at 1 with each burst.

    Beside a policy that bounds how much there is at once, as `in_flight`:

        r = the largest of e, (p - above) / (1 - above), and 1 - 1.1 * a where p was above `above`
        or iff a bound's p >= above, and this criticality and those below hold all its places but
        the n + sqrt(n) that the ones above it are about to need: n = places * what was offered of
        those in the last half second / what was admitted

    A large bound settles where as much is shed as is too much: in proportion, without a delay, so
    that it has nothing to swing with. A small one whose answers come many at once is empty one
    moment and full the next; there what was admitted lately keeps the less critical from the room
    that is free at the moment, and the last places are for the more critical, as trunk reservation
    keeps circuits for calls that matter more (Key, "Optimal Control and Trunk Reservation in Loss
    Networks", 1990).

    Criticalities are those of Google ("Site Reliability Engineering", Beyer et al., 2016, chapter
    21); levels per user, the same ones each time instead of everyone a little, are DAGOR's
    ("Overload Control for Scaling WeChat Microservices", Zhou et al., 2018). What is offered is
    recorded, not what is admitted: that would shed about twice too much. Unlabelled messages are
    critical.

    A message whose deadline has passed, or that would be answered only afterwards at the rate of
    the last second (unanswered / rate, Little's law), is refused first, whatever its criticality.
    What was set aside is not held to its deadline when it comes back: its owner chose to keep it.
    A clock that is stepped moves the deadlines that headers give, and no others.

    Bad at: a bound that answers empty and offers fill again in a moment, or one of ten places:
    while it is full the critical are refused as well; a `wait` in the chain is for that.

    Example:
        shed = { by = "priority" }
    """

    Settings = ShedSettings
    traits = Traits(deferred_settlement=True)
    shorthand = "by"

    def __init__(self, settings: ShedSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._key_of = rule.resolve(settings.per)
        self._default = RANKS[settings.criticality]
        self._above = settings.above
        self._by_priority = settings.by == "priority"
        self._levels = Levels()
        self._pace = Pace()
        self._balance = ShareController()
        self._held = PlaceCount()
        self._pressures: tuple[Measure, ...] | None = None
        self._bounds: tuple[Measure, ...] = ()
        self._excesses: tuple[Measure, ...] = ()
        self._ranked: tuple[Message | None, int] = None, 0
        self._levelled: tuple[Message | None, float] = None, 0.0
        self._undated: Message | None = None
        """What was found out about the message asked about last: it is so several times."""
        self._felt: tuple[float, Message | None, float] = -inf, None, 0.0
        self._shares: tuple[float, Message | None, float] = -inf, None, 0.0
        """When, for which message, and what: as long as nothing was taken or answered since."""
        self.random = random.random
        """Where chance decides; tests put a sequence of their own here."""
        self.wall = time.time
        """Seconds since 1970, for deadlines in headers."""

    def on_offer(self, message: Message, now: float) -> None:
        """Read the message's deadline, while that is a time from now, and record its level."""
        self._deadline(message, now)
        if not self._by_priority:
            return
        if message.draw is None:
            message.draw = self.random()
        self._forget()
        self._levelled = None, 0.0
        self._levels.add(self._level(message))
        self._balance.offer(now, self._pressure(message, now), self._rank(message))

    def check(self, message: Message, now: float) -> Refusal | None:
        """Refuse what is too late, then what is below the threshold."""
        deadline = None if message.aside else self._deadline(message, now)
        if deadline is not None:
            if deadline <= now:
                return Refusal(self, "past its deadline", inf)
            if now + self._pace.wait_s(now) > deadline:
                return Refusal(self, "would miss its deadline", None)
        if not self._by_priority:
            return None
        if self._is_shed(message, now) or self._is_crowded(message, now):
            return Refusal(self, NAMES[self._rank(message)], ASK_AGAIN_S)
        return None

    def acquire(self, message: Message, now: float) -> None:
        """Count it as unanswered."""
        self._forget()
        rank = self._rank(message)
        self._balance.admit(1)
        self._pace.unanswered += 1  # together with what follows: see `Policy`
        self._held.ranks[message] = rank
        self._held.by_rank[rank] += 1

    def cancel(self, message: Message) -> None:
        """Count it out: it was never sent."""
        self._forget()
        self._balance.admit(-1)
        self._release(message)

    def release(self, message: Message, outcome: Outcome, now: float) -> None:
        """Count an answer."""
        self._forget()
        self._pace.answered(now)
        self._release(message)

    def _release(self, message: Message) -> None:
        held = self._held
        if message in held.ranks:
            self._pace.unanswered -= 1  # together with what follows
            held.by_rank[held.ranks[message]] -= 1
            del held.ranks[message]

    def queue_key(self, message: Message) -> Hashable:
        """Messages of one connection and criticality wait behind each other: none behind less."""
        return message.signals, self._rank(message)

    def pressure(self, message: Message, now: float) -> float:
        """Return 1 for what is shed; else the part of all that is."""
        if self.check(message, now) is not None:
            return 1.0
        return min(1.0, max(0.0, self._share(message, now))) if self._by_priority else 0.0

    def status(self, now: float) -> Mapping[str, float | str | None]:
        """Show how many levels are known, and how long an answer takes."""
        return {"levels": len(self._levels), "wait_s": self._pace.wait_s(now)}

    def carry_over(self, old: Policy) -> None:
        """Keep the levels."""
        if isinstance(old, Shed):
            self._levels = old._levels

    # --- who may not --------------------------------------------------------------------------

    def _is_shed(self, message: Message, now: float) -> bool:
        """Tell whether it is below the threshold."""
        share = self._share(message, now)
        return share > 0.0 and self._level(message) < self._levels.quantile(share)

    def _is_crowded(self, message: Message, now: float) -> bool:
        """Tell whether the places that a bound has left are for those above its criticality.

        How many places there are, its pressure says: so many are held, and that is so much of it.
        """
        rank = self._rank(message)
        if rank == RANKS["critical-plus"] or not len(self._held):
            return False
        pressure = self._highest(self._bounds, message, now)
        if pressure < self._above:
            return False
        places = len(self._held) / pressure
        free_for_it = places - self._balance.needed_above(rank, places, now)
        return self._held.up_to(rank) >= free_for_it

    # --- how much -----------------------------------------------------------------------------

    def _share(self, message: Message, now: float) -> float:
        """Return which part of what is offered is to be shed; 0 or less for none."""
        at_s, asked, share = self._shares
        if asked is message and at_s == now:
            return share
        pressure = self._pressure(message, now)
        if self._bounds:
            share = (pressure - self._above) / (1.0 - self._above)
            share = max(share, self._balance.excess(now, self._above))
        else:
            share = self._balance.corrected(now, pressure, self._above)
        if self._excesses:
            share = max(share, self._highest(self._excesses, message, now))
        self._shares = now, message, share
        return share

    def _pressure(self, message: Message, now: float) -> float:
        """Return the highest pressure of the rule's other policies."""
        at_s, asked, highest = self._felt
        if asked is message and at_s == now:
            return highest
        if self._pressures is None:
            self._look_around()
        highest = self._highest(self._pressures or (), message, now)
        self._felt = now, message, highest
        return highest

    def _highest(self, others: Sequence[Measure], message: Message, now: float) -> float:
        """Return the highest part that others tell of; one that fails tells of none, by name."""
        highest = 0.0
        for asked in others:
            try:
                part = asked(message, now)
                if type(part) is not float or not 0.0 <= part <= 1.0:
                    part = _as_part(part)
            except Exception as error:
                self.rule.failed(asked, error)
                continue
            if part > highest:
                highest = part
        return highest

    def _forget(self) -> None:
        """Ask the other policies again: what they say is not the same any more."""
        self._felt = self._shares = -inf, None, 0.0

    def _look_around(self) -> None:
        """Find what the rule's other policies go by; all of them are there at the first message."""
        others = [p for p in self.rule.policies if not isinstance(p, SelectsVictims)]
        seen = [p for p in others if isinstance(p, Observable)]
        self._pressures = tuple(p.pressure for p in seen)
        self._bounds = tuple(p.pressure for p in seen if isinstance(p, BoundsInFlight))
        self._excesses = tuple(p.rejection_share for p in others if isinstance(p, Randomized))

    # --- who ----------------------------------------------------------------------------------

    def _level(self, message: Message) -> float:
        """Return the message's level; one that is back from aside is the first of its group."""
        asked, level = self._levelled
        if asked is not message:
            level = level_of(self._rank(message), self._key_of(message), message.draw or 0.0)
            self._levelled = message, level
        return level

    def _rank(self, message: Message) -> int:
        """Return what a plugin, else the header, else the rule says; unknown words say nothing."""
        rank = RANKS.get(message.priority or "")
        if rank is not None:
            return rank
        if not message.headers:
            return self._default
        if self._ranked[0] is not message:
            found = message.header(self.settings.header) or ""
            self._ranked = message, RANKS.get(found, self._default)
        return self._ranked[1]

    def _deadline(self, message: Message, now: float) -> float | None:
        """Return the deadline in monotonic seconds; what a header says is noted on the message."""
        if message.deadline is None and message.headers and message is not self._undated:
            text = message.header(self.settings.deadline_header)
            seconds = None if text is None else seconds_of(text)
            if seconds is None:
                self._undated = message
            else:
                message.deadline = now + seconds - self.wall()
        return message.deadline


def _as_part(said: object) -> float:
    """Read what another policy has said, where that is no float from 0 to 1."""
    if isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said <= 1 + 1e-6:
        return min(1.0, float(said))
    raise ValueError(f"found {said!r:.80}; allowed is a number from 0 to 1")


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `shed`."""
    return {"shed": Shed}
