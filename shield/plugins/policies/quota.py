"""`quota`: so many messages, or bytes, a second, for each producer, destination, key, ..."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from shield import Message, Policy, Refusal, Rule, StrictModel, Traits, hookimpl
from shield.algorithms.gcra import Gcra
from shield.capabilities import CarriesOver, Observable, Queues
from shield.units import ByteSize, Rate


class QuotaSettings(StrictModel):
    """One quota of a rule; a rule may have several, all of which must admit."""

    rate: Rate
    """How much a second, minute, hour or day: `500/s` messages, `5MiB/s` bytes."""
    burst: Annotated[ByteSize, Field(ge=1)] | None = None
    """How much at once after a pause, in messages or bytes as the rate; one second's worth."""
    per: str = "producer"
    """Who has a quota of their own: producer, destination, key, tenant, header:NAME."""
    max_keys: int = Field(default=1_000_000, ge=1)
    """Beyond so many live keys, new ones share one quota."""

    @field_validator("burst", mode="before")
    @classmethod
    def _in_the_rates_unit(cls, found: object, info: ValidationInfo) -> object:
        rate = info.data.get("rate")
        if rate is not None and not rate.in_bytes and not _is_number(found):
            raise ValueError(f"{rate} counts messages; allowed is a whole number of messages")
        return found

    @property
    def allowance(self) -> float:
        """The burst in messages or bytes, also where it was left to its default."""
        return float(self.burst or max(1.0, self.rate.per_second))


def _is_number(found: object) -> bool:
    return not isinstance(found, str) or found.strip().isdecimal()


class Quota(Policy, Queues, Observable, CarriesOver):
    """Rate limit by GCRA, one level for each key.

    Good at: exact long-term rates, no timers, eight bytes of state a key. Bad at: fairness within
    a key, whose burst the first comer may take whole.

    A message larger than a byte quota's burst is admitted while the key is not in debt, and its
    debt is carried: it delays what follows, and is never hung. A run of deliveries is not: it can
    be cut.
    """

    Settings = QuotaSettings
    shorthand = "rate"

    def __init__(self, settings: QuotaSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._key_of = rule.resolve(settings.per)
        self._gcra = Gcra(settings.rate.per_second, settings.allowance, settings.max_keys)
        self._rate, self._burst = settings.rate.per_second, settings.allowance
        self.traits = Traits(batchable=settings.per in ("producer", "destination"))
        self._in_bytes = settings.rate.in_bytes
        self._reason = f"{settings.rate} per {settings.per}"

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit where the key's level allows."""
        cost = message.size if self._in_bytes else message.messages
        wait_s = self._gcra.wait_s(self._key_of(message), cost, now)
        if wait_s <= 0.0 and (message.messages == 1 or cost <= self._burst):
            return None
        return Refusal(self, self._reason, wait_s)

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the burst of the message's key is in use."""
        key = self._key_of(message)
        return 1.0 if self.check(message, now) is not None else self._gcra.used(key, now)

    def acquire(self, message: Message, now: float) -> None:
        """Charge the key that was asked about."""
        self._gcra.take_asked(now)

    def cancel(self, message: Message) -> None:
        """Take the charge back."""
        cost = message.size if self._in_bytes else message.messages
        self._gcra.give_back(self._key_of(message), cost)

    def queue_key(self, message: Message) -> Hashable:
        """Messages of one key wait behind each other."""
        return self._key_of(message)

    def drain_time_s(self, messages: int, size: int) -> float | None:
        """Return how long the rate takes for so much."""
        return (size if self._in_bytes else messages) / self._rate

    def carry_over(self, old: Policy) -> None:
        """Keep the levels."""
        if isinstance(old, Quota):
            self._gcra = old._gcra


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `quota`."""
    return {"quota": Quota}
