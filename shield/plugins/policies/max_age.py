"""`max_age`: deliveries that were published too long ago are over the limit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import inf
from typing import cast

from shield import Delivery, Message, Policy, Refusal, Rule, StrictModel, Traits, hookimpl
from shield.capabilities import Validates
from shield.policy import CONSUME
from shield.units import Seconds


class MaxAgeSettings(StrictModel):
    """From when on a message is of no use to its consumer."""

    age: Seconds
    """How old a message may be when it is handed over, as `30s`."""


class MaxAge(Policy, Validates):
    """Refuses a delivery that is older than this, and for good: it only gets older.

    Its age is the time since its timestamp: the one that Kafka keeps with each record, RabbitMQ's
    property `timestamp`. That goes by the wall clocks of two machines, as they are when it is
    decided on; one that seems to come from the future is new. What has no timestamp is admitted.
    """

    Settings = MaxAgeSettings
    traits = Traits(directions=CONSUME, batchable=True)
    shorthand = "age"

    def __init__(self, settings: MaxAgeSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._reason = f"older than {settings.age:g} s"
        self.wall = time.time
        """Seconds since 1970; tests put a clock of their own here."""

    def validate(self) -> None:
        """Refuse a rule that would hold back for ever what is too old."""
        if not any(action.final or action.sets_aside for action in self.rule.chain):
            raise ValueError(
                "what is too old stays so, and nothing in over_limit ends it; allowed with "
                "'drop' or 'overflow DESTINATION' there"
            )

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit what is young enough, and what says of no time."""
        written_s = cast(Delivery, message).written_s
        if written_s is None or self.wall() - written_s <= self.settings.age:
            return None
        return Refusal(self, self._reason, inf)


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `max_age`."""
    return {"max_age": MaxAge}
