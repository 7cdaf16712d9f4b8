"""`overflow DESTINATION`: send the message somewhere else, bounded and confirmed."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from pydantic import Field

from shield import Action, OverLimit, Rule, StrictModel, action, hookimpl
from shield.plugins.bound import Bound
from shield.units import ByteSize


class OverflowSettings(StrictModel):
    """Where to, and how much of it may be unanswered at once."""

    destination: str = Field(min_length=1)
    """The overflow topic, on the same cluster."""
    messages: int = Field(default=10_000, ge=1)
    """How many overflow sends may be unanswered; beyond, the action declines."""
    bytes: ByteSize = Field(default=16 * 1024**2, ge=1)
    """How many bytes of them."""
    declare: bool = False
    """RabbitMQ: make exchange, queue and binding on first need; else `shield setup` does."""


class Overflow(Action):
    """The caller gets the overflow send's own result; when that fails, the chain goes on.

    The send is bounded by itself, because a broker that does not answer answers neither topic.
    Declines a message that was going to the overflow destination in the first place.
    """

    Settings = OverflowSettings
    argument = "destination"

    def __init__(self, settings: OverflowSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._bound = Bound(settings.messages, settings.bytes)
        self._lock = threading.Lock()

    def validate(self) -> None:
        """Refuse a destination that is all the rule covers."""
        if self.settings.destination == self.rule.match:
            raise ValueError(
                f"that is the destination the rule is about; allowed is any other than "
                f"{self.rule.match!r}"
            )

    @property
    def destination(self) -> str:
        """As the settings name it."""
        return str(self.settings.destination)

    def step(self, over: OverLimit) -> action.Step | None:
        """Divert, unless it is there already or too much is unanswered."""
        size = over.message.size
        if over.message.destination == self.settings.destination:
            return None
        with self._lock:
            if self._bound.exceeded_by(size) is not None:
                return None
            self._bound.take(size)
        return action.Divert(
            self.settings.destination, lambda: self._done(size), declare=self.settings.declare
        )

    def _done(self, size: int) -> None:
        with self._lock:
            self._bound.release(size)


@hookimpl
def shield_actions() -> Mapping[str, type[Action]]:
    """Contribute `overflow`."""
    return {"overflow": Overflow}
