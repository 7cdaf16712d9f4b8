"""`in_flight`: so many messages, or bytes, sent and not yet answered, or received and not acked."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from shield import Message, Outcome, Policy, Refusal, Rule, StrictModel, Traits, hookimpl
from shield.algorithms.bound import Bound
from shield.capabilities import BoundsInFlight, Observable
from shield.units import ByteSize


class InFlightSettings(StrictModel):
    """The bound; at least one of the two."""

    messages: int | None = Field(default=None, ge=1)
    """How many messages may be unanswered at once."""
    bytes: ByteSize | None = Field(default=None, ge=1)
    """How many bytes may be unanswered at once."""

    @model_validator(mode="after")
    def _bounds_something(self) -> InFlightSettings:
        if self.messages is None and self.bytes is None:
            raise ValueError("allowed is messages, bytes, or both")
        return self


class InFlight(Policy, BoundsInFlight, Observable):
    """One bound for all that the rule covers; a permit holds its place until the broker answers.

    This is what keeps memory flat while a broker is away: kafka-python itself has no bound. In a
    rule with `direction = "consume"` it bounds what is handed out and not yet acknowledged.
    """

    Settings = InFlightSettings
    traits = Traits(batchable=True, deferred_settlement=True)

    def __init__(self, settings: InFlightSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._bound = Bound(settings.messages, settings.bytes)

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit where there is room."""
        bound = self._bound
        if (
            bound.messages + message.messages <= bound.max_messages
            and bound.size + message.size <= bound.max_bytes
        ):
            return None
        if message.messages > 1:
            return Refusal(self, "messages", None)  # a run can be cut
        exceeded = bound.exceeded_by(message.size)
        return None if exceeded is None else Refusal(self, exceeded, None)

    def max_in_flight(self) -> int | None:
        """Return the bound in messages."""
        most: int | None = self.settings.messages
        return most

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the bound is in use."""
        return 1.0 if self._bound.exceeded_by(message.size) else min(1.0, self._bound.used)

    def acquire(self, message: Message, now: float) -> None:
        """Hold a place."""
        bound = self._bound  # as Bound.take, less a call: this runs for every message
        bound.messages += message.messages
        bound.size += message.size

    def cancel(self, message: Message) -> None:
        """Free the place of a send that never began."""
        self._bound.release(message.size, message.messages)

    def release(self, message: Message, outcome: Outcome, now: float) -> None:
        """Free the place: the broker has answered."""
        bound = self._bound
        bound.messages -= message.messages
        bound.size -= message.size


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `in_flight`."""
    return {"in_flight": InFlight}
