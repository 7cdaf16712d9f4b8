"""`queue_delay`: shed what waits too long in a queue of Shield's, and serve the newest first."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import inf
from weakref import WeakKeyDictionary

from pydantic import Field, model_validator

from shield import Message, Policy, Refusal, Rule, Signals, StrictModel, hookimpl
from shield.algorithms.codel import Codel
from shield.capabilities import (
    FollowsDiversion,
    LimitsSojourn,
    Observable,
    Queues,
    ReadsSignals,
    Validates,
)
from shield.units import Seconds


class QueueDelaySettings(StrictModel):
    """What is a good delay, and what one that lasts."""

    target: Seconds = Field(default=0.005, gt=0)
    """A delay that is good enough; the default suits calls that are answered in milliseconds."""
    interval: Seconds = Field(default=0.1, gt=0)
    """For how long every message must have waited longer, before any is shed."""
    longest: Seconds | None = Field(default=None, gt=0)
    """What has waited longer is shed then; twice the target if not given."""

    @model_validator(mode="after")
    def _fit_together(self) -> QueueDelaySettings:
        if self.interval < self.target:
            raise ValueError(
                f"interval is {self.interval:g} s and target {self.target:g} s; "
                "allowed is an interval that is not below the target"
            )
        if self.longest is not None and self.longest < self.target:
            raise ValueError(
                f"longest is {self.longest:g} s and target {self.target:g} s; "
                "allowed is a longest that is not below the target"
            )
        return self

    def delay(self) -> Codel:
        """Return what watches one queue by these."""
        return Codel(self.target, self.interval, self.longest)


class QueueDelay(Policy, Validates, LimitsSojourn, Queues, ReadsSignals, Observable):
    """Refuses after all what has waited too long to be written, or to be handed over.

    In the queue of each connection that Shield writes to itself (RabbitMQ's write thread), and in
    that of each consumer, where deliveries wait for its rules (Kafka: one for each partition):

        every `interval`: overloaded iff the smallest delay in it > `target`
        while overloaded: what waited > `longest` is shed, and the newest go first

    What is shed goes on in the rule's chain, on the write thread, where nobody waits; it is charged
    nothing. So does a delivery, with its `drop` or `overflow`: it only gets older, and no `wait`
    takes it. The algorithm is `Codel`: Facebook's variant of CoDel (Maurer, "Fail at Scale",
    2015, after Nichols and Jacobson, 2012).

    The newest first is for RabbitMQ. In a Kafka partition, where a commit says that all before it
    is done, the oldest go first whatever happens, and are shed first.

    While a queue is overloaded messages of the rule overtake each other in it, but not those that
    an `order` keeps in their order: these are left alone, neither shed nor overtaken. So is what
    was set aside before; while the queue is overloaded that does not come back. In shadow mode it
    counts what it would have shed.

    Bad at: a queue that is long because messages come in large batches and then none; give it a
    `target` of the time that a batch may take. To a Kafka consumer what one poll has fetched is
    such a batch. kafka-python's own queue is not Shield's to shed.

    Example:
        queue_delay = { target = "5ms", interval = "100ms", longest = "10ms" }
    """

    Settings = QueueDelaySettings
    shorthand = "target"

    def __init__(self, settings: QueueDelaySettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._delays: WeakKeyDictionary[Signals, Codel] = WeakKeyDictionary()
        self._receives = rule.direction == "consume"
        self._retry_after_s = inf if self._receives else settings.interval

    def validate(self) -> None:
        """Refuse a rule in which nothing could be shed: it keeps an order, or has no end for it."""
        ends = any(action.final or action.sets_aside for action in self.rule.chain)
        if self._receives and not ends:
            raise ValueError(
                "what has waited too long is to be shed, and nothing in over_limit ends it; "
                "allowed with 'drop' or 'overflow DESTINATION' there"
            )
        ordering = [p.name for p in self.rule.policies if isinstance(p, FollowsDiversion)]
        if ordering:
            raise ValueError(
                f"the newest first is not the order that {ordering[0]} keeps; "
                "allowed is one of the two in a rule"
            )

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit, but for what was set aside and would come back into a queue that stands."""
        if not message.aside or not self.newest_first(message, now):
            return None
        return Refusal(self, "queue delay", self.settings.interval)

    def check_waiting(self, message: Message, waited_s: float, now: float) -> Refusal | None:
        """Learn the delay of what stands first; refuse it where it is too old."""
        signals = message.signals
        if signals is None:
            return None
        delay = self._delays.get(signals)
        if delay is None:
            delay = self._delays[signals] = self.settings.delay()
        if self._receives:
            delay.stood(waited_s, now)
        else:
            delay.tell(waited_s, now)
        if not delay.is_too_old(waited_s, now):
            return None
        return Refusal(self, "queue delay", self._retry_after_s)

    def newest_first(self, message: Message, now: float) -> bool:
        """Tell whether the message's queue is overloaded."""
        delay = self._delay(message)
        return delay is not None and delay.is_overloaded(now)

    def pressure(self, message: Message, now: float) -> float:
        """Return how near to `longest` the delay of the message's queue is."""
        if self.check(message, now) is not None:
            return 1.0
        delay = self._delay(message)
        return 0.0 if delay is None else delay.pressure(now)

    def queue_key(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals

    def status(self, now: float) -> Mapping[str, float | str | None]:
        """Show how many queues stand."""
        return {"overloaded": sum(d.is_overloaded(now) for d in list(self._delays.values()))}

    def _delay(self, message: Message) -> Codel | None:
        return None if message.signals is None else self._delays.get(message.signals)


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `queue_delay`."""
    return {"queue_delay": QueueDelay}
