"""`buffer`: keep the message in memory and send it when the policies admit it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from shield import Action, End, OverLimit, Rule, StrictModel, Transport, action, hookimpl
from shield.algorithms.bound import Bound
from shield.algorithms.codel import Codel
from shield.chain.retained import Retained
from shield.plugins.actions.buffer.queues import RetainingAction
from shield.plugins.actions.buffer.sender import BufferSender, drain_of
from shield.plugins.policies.queue_delay import QueueDelaySettings
from shield.units import ByteSize, parse_size

SIZE_HELP = 'allowed is a number of messages as "buffer 10000", or of bytes as "buffer 64MiB"'


class BufferSettings(StrictModel):
    """How much may be kept; both bounds hold, whichever was given."""

    limit: str | int | None = None
    """What may stand behind the name: `buffer 10000` messages, or `buffer 64MiB`."""
    messages: int = Field(default=100_000, ge=1)
    """How many messages; beyond, the action declines. Each takes 1 to 3 kB beside its payload."""
    bytes: ByteSize = Field(default=64 * 1024**2, ge=1)
    """How many bytes of bodies and keys."""
    queue_delay: QueueDelaySettings | None = None
    """How long they may be kept while too much is; by default as long as it takes."""

    @model_validator(mode="before")
    @classmethod
    def _from_limit(cls, data: Any) -> Any:
        """Read `limit` as one of the two bounds."""
        if not isinstance(data, dict) or data.get("limit") is None:
            return data
        if "messages" in data or "bytes" in data:
            raise ValueError("allowed is limit alone, or messages and bytes without it")
        limit = str(data["limit"]).strip()
        try:
            if limit[-1:].isalpha():
                return {**data, "bytes": parse_size(limit)}
            return {**data, "messages": int(limit)}
        except ValueError:
            raise ValueError(f"found {limit!r}; {SIZE_HELP}") from None


class Buffer(RetainingAction):
    """The caller has a pending future, which ends as the real send does, with its result.

    Declines when it is full. Good at: peaks that are over in seconds; nothing is written anywhere.
    Bad at: a process that is killed, which takes its buffer with it.

    A message leaves the buffer when the policies admit it, in the order of all who wait: those who
    come later wait behind it. When its client closes, what cannot be sent in time goes on to the
    chain's next action.

    With `queue_delay`, whose times are to be those of a buffer (seconds rather than its defaults),
    a buffer that never gets nearly empty sends its newest first, and hands on to the chain's next
    action what has been kept too long; what an `order` binds together stays in its order.
    """

    Settings = BufferSettings
    directions = frozenset({"publish"})
    argument = "limit"
    sets_aside = True

    def __init__(self, settings: BufferSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._bound = Bound(settings.messages, settings.bytes)
        self._lock = threading.Lock()
        self._drain: BufferSender | None = None
        self._closed: weakref.WeakSet[Transport] = weakref.WeakSet()

    def step(self, over: OverLimit) -> action.Step | None:
        """Keep it, unless it is full or the message will never be admitted."""
        with self._lock:
            full = self._bound.exceeded_by(over.message.size) is not None
        if full or over.retry_after_s == float("inf"):
            return action.Decline("full" if full else "it would never be admitted")
        return action.Keep("buffered", self._keep)

    def _keep(self, kept: Retained) -> None:
        """Take it; where the buffer is full, or its client closes meanwhile, the chain goes on.

        That is so for the newcomer alone: what was taken before is sent.
        """
        if kept.client in self._closed or not self._take(kept.over.message.size):
            kept.go_on()
            return
        kept.over.keep(End.BUFFERED)
        self._drain = drain = drain_of(kept.over.engine.clock)
        queue = drain.keep(kept)
        if kept.client in self._closed:
            drain.let_go(kept, queue)

    def _take(self, size: int) -> bool:
        """Take room for a message, unless it is full."""
        with self._lock:
            if self._bound.exceeded_by(size) is not None:
                return False
            self._bound.take(size)
            return True

    def released(self, kept: Retained) -> None:
        """Give its place back."""
        with self._lock:
            self._bound.release(kept.over.message.size)

    def queue_delay(self) -> Codel | None:
        """Return what watches one queue of the drain, where the settings say so."""
        return None if self.settings.queue_delay is None else self.settings.queue_delay.delay()

    def flush(self, client: Transport, timeout_s: float | None) -> None:
        """Return when all of that client that is buffered by now is sent, or the time is over."""
        if self._drain is not None:
            self._drain.flush(client, timeout_s)

    def closing(self, client: Transport, timeout_s: float | None) -> None:
        """Send what is admitted in most of the time; the rest goes on in its chain."""
        self._closed.add(client)
        if self._drain is not None:
            self._drain.close(client, timeout_s)


@hookimpl
def shield_actions() -> Mapping[str, type[Action]]:
    """Contribute `buffer`."""
    return {"buffer": Buffer}
