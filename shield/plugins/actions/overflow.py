"""`overflow DESTINATION`: send the message somewhere else, bounded and confirmed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping

from pydantic import Field, PrivateAttr, model_validator

from shield import URL, Action, OverLimit, Rule, Source, StrictModel, Transport, action, hookimpl
from shield.algorithms.bound import Bound
from shield.chain.runner import may_block
from shield.units import ByteSize
from shield.url import ALLOWED as URL_FORM
from shield.url import is_url

_MISTYPED = re.compile(r"[a-z][a-z0-9+.-]*:/|[^@]*:.*@|//")
"""What was meant as a URL, and would be shown and sent to as a name, password and all."""
FLUSH_WITHIN_S = 60.0
"""How long a flush without a limit waits: any transport has failed what it cannot send by then."""


class OverflowSettings(StrictModel):
    """Where to, and how much of it may be unanswered at once."""

    destination: str = Field(min_length=1, repr=False)
    """The overflow topic or exchange on the same broker, or the URL of another place."""
    messages: int = Field(default=10_000, ge=1)
    """How many overflow sends may be unanswered; beyond, the action declines."""
    bytes: ByteSize = Field(default=16 * 1024**2, ge=1)
    """How many bytes of them."""
    declare: bool = False
    """RabbitMQ: make exchange, queue and binding on first need; else `shield setup` does."""

    _url: URL | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _read_url(self) -> OverflowSettings:
        """Read it once: a process forked later has the same, whatever its environment holds."""
        if is_url(self.destination):
            self._url = URL.parse(self.destination)
        elif _MISTYPED.match(self.destination):
            raise ValueError(f"no name, and not a URL; {URL_FORM}")
        return self

    @property
    def url(self) -> URL | None:
        """The other place, where that is not on the message's own broker."""
        return self._url


class Overflow(Action):
    """The caller gets the overflow send's own result; when that fails, the chain goes on.

    The send is bounded by itself, because a broker that does not answer answers neither topic.
    Declines a message that was going to the overflow destination in the first place.
    """

    Settings = OverflowSettings
    argument = "destination"
    one_word = True
    sets_aside = True
    returns = False

    def __init__(self, settings: OverflowSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._destination = str(settings.url or settings.destination)
        self._transport: Transport | None = None
        self._bound = Bound(settings.messages, settings.bytes)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def validate(self) -> None:
        """Refuse a destination that is all the rule covers, and a URL that nothing sends to."""
        if self._destination == self.rule.match:
            raise ValueError(
                f"that is the destination the rule is about; allowed is any other than "
                f"{self.rule.match!r}"
            )
        url = self.settings.url
        if url is not None:
            if self.settings.declare:
                raise ValueError("declare is for an exchange on the rule's own RabbitMQ")
            self._transport = self.rule.transport(url)
            if self._transport.roams:
                raise ValueError(
                    f"{url} names no place on that broker; allowed is {self._transport.form}"
                )

    @property
    def destination(self) -> str:
        """As the settings name it, without secrets."""
        return self._destination

    def step(self, over: OverLimit) -> action.Step | None:
        """Divert, unless it is there already or too much is unanswered."""
        size = over.message.size
        if over.message.destination == self._destination:
            return action.Decline("it was going there")
        with self._lock:
            if (exceeded := self._bound.exceeded_by(size)) is not None:
                return action.Decline(f"its own bound on unanswered {exceeded} is reached")
            self._bound.take(size)
        return action.Divert(
            self._destination,
            lambda: self._done(size),
            self._transport,
            declare=self.settings.declare,
        )

    @property
    def place(self) -> URL | None:
        """The URL, where it is one."""
        url: URL | None = self.settings.url
        return url

    def way_back(self, client: Transport) -> Source:
        """Return what reads the destination: on the client's own broker, or anywhere."""
        if self.place is None:
            return client.way_back(self._destination)
        return self.rule.source(self.place)

    def _done(self, size: int) -> None:
        with self._changed:
            self._bound.release(size)
            self._changed.notify_all()

    # --- another place: no client of the message's own broker waits for it ------------------------

    def flush(self, client: Transport, timeout_s: float | None) -> None:
        """Wait for what is on its way to another place."""
        if self._transport is None or not may_block():
            return
        deadline = time.monotonic() + (FLUSH_WITHIN_S if timeout_s is None else timeout_s)
        with self._changed:
            while self._bound.messages and (left_s := deadline - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def closing(self, client: Transport, timeout_s: float | None) -> None:
        """Wait for what is on its way: where it fails, its client can still send it on."""
        self.flush(client, timeout_s)


@hookimpl
def shield_actions() -> Mapping[str, type[Action]]:
    """Contribute `overflow`."""
    return {"overflow": Overflow}
