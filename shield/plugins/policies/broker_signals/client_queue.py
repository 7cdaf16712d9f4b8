"""`queue`: so many messages, or bytes, in the client's own queue, waiting to be written."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import inf

from pydantic import Field, model_validator

from shield import Message, Policy, Refusal, Rule, StrictModel, hookimpl
from shield.units import ByteSize


class ClientQueueSettings(StrictModel):
    """The bound; at least one of the two."""

    messages: int | None = Field(default=None, ge=1)
    """How many messages may wait to be written."""
    bytes: ByteSize | None = Field(default=None, ge=1)
    """How many bytes may wait to be written."""

    @model_validator(mode="after")
    def _bounds_something(self) -> ClientQueueSettings:
        if self.messages is None and self.bytes is None:
            raise ValueError("allowed is messages, bytes, or both")
        return self


class ClientQueue(Policy):
    """Sheds load while the queue between producers and the write thread is full.

        over the limit iff waiting messages >= messages,
        or waiting bytes + the message's own > bytes while anything waits

    Shedding ends at the bound where it began, without hysteresis: each message is decided on by
    itself and nothing is paused or resumed, so that there is nothing to flap; as much is shed as
    is offered beyond what the broker takes, and the queue stays full rather than swings (tail
    drop, RFC 7567). Its cost is latency: what is admitted waits behind a full queue, so
    choose a bound of as much as the broker takes in the time a message may be late.

    It counts what waits on the connection that the message goes to. Threads that publish at the
    same moment may each bring one message above the bound.

    Example:
        queue = { messages = 10_000, bytes = "16MiB" }
    """

    Settings = ClientQueueSettings
    directions = frozenset({"publish"})
    goes_by = frozenset({"queue_messages"})
    bounds = True
    listens = True

    def __init__(self, settings: ClientQueueSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._max_messages = inf if settings.messages is None else settings.messages
        self._max_bytes = inf if settings.bytes is None else settings.bytes

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit while there is room in the queue; one larger than all bytes passes alone."""
        signals = message.signals
        if signals is None or not signals.queue_messages:
            return None
        if signals.queue_messages >= self._max_messages:
            return Refusal(self, "messages", None)
        if (signals.queue_bytes or 0) + message.size > self._max_bytes:
            return Refusal(self, "bytes", None)
        return None

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the bound is in use."""
        signals = message.signals
        if signals is None or not signals.queue_messages:
            return 0.0
        if self.check(message, now) is not None:
            return 1.0
        messages = signals.queue_messages / self._max_messages
        return min(1.0, max(messages, (signals.queue_bytes or 0) / self._max_bytes))

    def line(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `queue`."""
    return {"queue": ClientQueue}
