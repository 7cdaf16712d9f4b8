"""`confirm_window`: slow publishers down as the window of unconfirmed messages fills."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from pydantic import Field, model_validator

from shield import Message, Policy, Refusal, Rule, StrictModel, hookimpl
from shield.units import Seconds, Share


class ConfirmWindowSettings(StrictModel):
    """From where to delay, how much, and from where to refuse."""

    above: Share = 0.5
    """The part of the window in use above which messages are delayed."""
    delay: Seconds = Field(default=1.0, le=60)
    """The longest delay, reached where the limit is."""
    limit: Share = 1.0
    """The part of the window in use at which messages are over the limit."""

    @model_validator(mode="after")
    def _leaves_room_to_delay(self) -> ConfirmWindowSettings:
        if self.above >= self.limit:
            raise ValueError(
                f"above is {self.above:.0%} and limit {self.limit:.0%}; "
                "allowed is an above that is below the limit"
            )
        return self


class ConfirmWindow(Policy):
    """Delays each message by up to `delay` above a part of the window, and refuses at the limit.

    With u the part of the window in use:

        delay_s = delay * (u - above) / (limit - above), from 0 to delay
        over the limit iff u >= limit

    After the rate limiter of outstanding confirms in RabbitMQ's .NET client 7
    (`ThrottlingRateLimiter`: u * 1 s above half of the window). Here the delay grows from zero
    rather than starts with half a second, so that a window a little over half full, as it is at a
    healthy steady load, costs a little. Each publishing thread is delayed by itself.

    Example:
        confirm_window = { above = "50%", delay = "1s", limit = "100%" }
    """

    Settings = ConfirmWindowSettings
    directions = frozenset({"publish"})
    listens = True
    goes_by = frozenset({"window_used"})

    def __init__(self, settings: ConfirmWindowSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._above = settings.above
        self._limit = settings.limit
        self._slope = settings.delay / (settings.limit - settings.above)
        self._most_s = settings.delay

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit while the window is not used up to the limit."""
        used = _used(message)
        return None if used < self._limit else Refusal(self, "confirm window", None)

    def pressure(self, message: Message, now: float) -> float:
        """Return how near to its limit the window is."""
        return min(1.0, _used(message) / self._limit)

    def delay_s(self, message: Message, now: float) -> float:
        """Return how long to hold the message back: nothing up to `above`, then more and more."""
        over = _used(message) - self._above
        return min(self._most_s, over * self._slope) if over > 0.0 else 0.0

    def line(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals


def _used(message: Message) -> float:
    """Return the part of the window in use; one that is not known is not used."""
    signals = message.signals
    return 0.0 if signals is None else signals.window_used or 0.0


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `confirm_window`."""
    return {"confirm_window": ConfirmWindow}
