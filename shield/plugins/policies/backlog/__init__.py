"""`backlog`: send less while consumers lag behind, or a queue is long."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from shield import (
    URL,
    BacklogTarget,
    Message,
    Outcome,
    Policy,
    Rule,
    StrictModel,
    Traits,
    hookimpl,
)
from shield.capabilities import Observable, Queues, ReadsSignals
from shield.plugins.policies.backlog.gauge import BacklogGauge
from shield.plugins.policies.by_chance import ByChance
from shield.policy import PUBLISH
from shield.units import Seconds, Share

STALE = 3.0
"""After so many of its pauses, reading may have ended with the last client of that broker."""
MAX_GAUGES = 1000


class BacklogSettings(StrictModel):
    """What is watched, and how much may wait there."""

    limit: int = Field(ge=1)
    """How many messages may wait."""
    group: str = ""
    """Kafka: whose lag it is, the consumers' `group_id`. Needed there."""
    destination: str | None = Field(default=None, min_length=1)
    """The topic, or RabbitMQ's queue, to watch; without it the message's own destination."""
    management: str | None = Field(default=None, repr=False)
    """RabbitMQ: its management API, as `http://host:15672`, to ask that for what waits, also handed
    out and not acknowledged; in the publisher's name where the URL has none."""
    release: Share = 0.8
    """The part of the limit at which messages are admitted freely again."""
    every: Seconds = 1.0
    """How often it is read: not much more than the limit is to be consumed meanwhile."""
    forget: Seconds = 30.0
    """For how long the last reading is carried on while no other comes; then it is unknown."""
    unknown: Literal["admit", "refuse"] = "admit"
    """What it means that it is unknown: before the first reading, or too long after the last."""

    @field_validator("management")
    @classmethod
    def _is_a_web_address(cls, management: str | None) -> str | None:
        if management is not None:
            url = URL.parse(management)
            if url.scheme not in ("http", "https") or not url.hosts or url.options:
                raise ValueError("allowed is http://[user:password@]host:port, or https://...")
        return management

    @field_validator("release")
    @classmethod
    def _is_below_the_limit(cls, release: float) -> float:
        if release >= 1:
            raise ValueError('it would never be over; allowed is less than 100%, as "80%"')
        return release

    @model_validator(mode="after")
    def _is_read_before_it_is_forgotten(self) -> BacklogSettings:
        if self.every >= self.forget:
            raise ValueError(
                f"every ({self.every:g} s) is to be less than forget ({self.forget:g} s): "
                "each reading would be forgotten before the next"
            )
        return self


class Backlog(ByChance, ReadsSignals, Queues, Observable):
    """Refuses from `limit` on, and less and less down to `release`, while too much waits.

    With b how much waits, engaged once b >= limit and until b <= release * limit:

        share refused = (b - release * limit) / (limit - release * limit), from 0 to 1

    In between, as much is admitted as is consumed: b settles there for as long as too much is
    offered, instead of swinging between all and nothing. The hysteresis is that of a thermostat;
    the proportional band within it is what keeps it from flapping (Hellerstein et al., "Feedback
    Control of Computing Systems", 2004). Chance is drawn once for a message; beside `shed` that
    policy chooses who is refused.

    b is the lag of a group (Kafka: ends of the partitions less its commits) or a queue's depth
    (RabbitMQ: ready messages, or with `management` also those handed out), read once a second, or
    as often as `every` says, for all rules together; in between what this rule sends is counted as
    it goes, and how fast consumers are is tracked from reading to reading (`BacklogGauge`). Unknown
    is not zero, and has an age (`Shield.status`); observers hear of it (`backlog_unknown`,
    `backlog_known`). Clocks that are stepped do not matter. A reading that differs from what was
    expected by much more than the limit (a topic made anew, offsets that were set) is believed at
    once, and says nothing of how fast they are.

    A limit of less than consumers take from one reading to the next leaves them idle in between
    while their pace is being learnt, and is held only roughly: for a short queue read often. A
    Kafka group's lag has in it what is consumed and not committed yet: a limit of some ten
    milliseconds' worth of messages needs consumers that commit as often.

    Bad at: lag that grows for another reason than this rule's messages; then it refuses what it
    can, which may not help.

    Example:
        backlog = { limit = 100_000, group = "billing" }
    """

    Settings = BacklogSettings
    traits = Traits(directions=PUBLISH)
    required_signals = frozenset({"backlogs"})
    wakes_on_signal = False
    reason = "backlog"

    def __init__(self, settings: BacklogSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._limit = float(settings.limit)
        self._release = settings.release * settings.limit
        self._via = None if settings.management is None else rule.url(settings.management)
        self._destination = settings.destination
        self._gauges: dict[tuple[str, str], BacklogGauge] = {}
        """By broker and destination; looked up several times for each message."""
        self._stale_s = STALE * settings.every

    def on_offer(self, message: Message, now: float) -> None:
        """Draw for the message, and have its place watched."""
        self.draw(message)
        gauge = self._gauge(message)
        if gauge is None:
            self._begin_to_watch(message)
        elif (age_s := gauge.age_s(now)) is None or age_s > self._stale_s:
            self._watch_again(message, gauge)

    def retry_after_s(self, now: float) -> float:
        """Return how often it is read."""
        every_s: float = self.settings.every
        return every_s

    def acquire(self, message: Message, now: float) -> None:
        """Count it: it will wait there."""
        gauge = self._gauge(message)
        if gauge is not None:
            gauge.send(1)

    def cancel(self, message: Message) -> None:
        """Count it out: it was never sent."""
        gauge = self._gauge(message)
        if gauge is not None:
            gauge.send(-1)

    def release(self, message: Message, outcome: Outcome, now: float) -> None:
        """Count it as arrived: the next reading knows it."""
        gauge = self._gauge(message)
        if gauge is not None:
            gauge.answer()

    def pressure(self, message: Message, now: float) -> float:
        """Return 1 for what is refused, else which part of the limit waits."""
        if self.check(message, now) is not None:
            return 1.0
        gauge = self._gauge(message)
        level = None if gauge is None else self._level(gauge, now)
        return 0.0 if level is None else min(1.0, level / self._limit)

    def rejection_share(self, message: Message, now: float) -> float:
        """Return the share to refuse."""
        gauge = self._gauge(message)
        level = None if gauge is None else self._level(gauge, now)
        if gauge is None or level is None:
            return 1.0 if self.settings.unknown == "refuse" else 0.0
        gauge.engaged = level > self._release if gauge.engaged else level >= self._limit
        if not gauge.engaged:
            return 0.0
        return min(1.0, (level - self._release) / (self._limit - self._release))

    def queue_key(self, message: Message) -> Hashable:
        """Messages for one place wait behind each other."""
        signals = message.signals
        return None if signals is None else (signals, self._place(message))

    def status(self, now: float) -> Mapping[str, float | str | None]:
        """Show the place where most waits, how old that is, and why it could not be read."""
        levels = [(self._level(gauge, now), gauge) for gauge in self._gauges.values()]
        if not levels:
            return {"waiting": None, "age_s": None}
        level, gauge = max(levels, key=lambda each: -1.0 if each[0] is None else each[0])
        return {
            "place": str(gauge.watch.place),
            "waiting": level,
            "age_s": gauge.age_s(now),
            "engaged": int(gauge.engaged),
            "jumps": gauge.jumps,
            "error": gauge.watch.error,
        }

    def _level(self, gauge: BacklogGauge, now: float) -> float | None:
        """Return how much waits; None where that is not known, or not any more."""
        age_s = gauge.age_s(now)
        return None if age_s is None or age_s > self.settings.forget else gauge.level(now)

    def _place(self, message: Message) -> BacklogTarget:
        return BacklogTarget(
            self._destination or message.destination, self.settings.group, self._via
        )

    def _gauge(self, message: Message) -> BacklogGauge | None:
        backlogs = None if message.signals is None else message.signals.backlogs
        if backlogs is None:
            return None
        return self._gauges.get((backlogs.origin, self._destination or message.destination))

    def _begin_to_watch(self, message: Message) -> None:
        backlogs = None if message.signals is None else message.signals.backlogs
        if backlogs is None or len(self._gauges) >= MAX_GAUGES:
            return
        place = self._place(message)
        watch = backlogs.watch(place, self.settings.every)
        if watch is not None:
            self._gauges[backlogs.origin, place.destination] = BacklogGauge(watch, self._limit)

    def _watch_again(self, message: Message, gauge: BacklogGauge) -> None:
        """Have the place of an old reading watched by the message's client, if it is not."""
        backlogs = None if message.signals is None else message.signals.backlogs
        watch = None if backlogs is None else backlogs.watch(gauge.watch.place, self.settings.every)
        if watch is not None:
            gauge.watch = watch


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `backlog`."""
    return {"backlog": Backlog}
