"""A message that an action keeps, until it is sent, stored, or handed on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from shield.accounts import End
from shield.headers import identity

if TYPE_CHECKING:
    from shield.action import Action
    from shield.clients.pending import MessagePort
    from shield.envelope import Envelope
    from shield.transport import Transport
    from shield.verdict import OverLimit, Permit


log = logging.getLogger("shield")


class Retained:
    """One message whose caller has a future. Exactly one of `send`, `stored`, `go_on` ends it.

    None of them raises; what goes wrong is the future's error.
    """

    __slots__ = ("_ended", "_expected", "_port", "_position", "number", "over", "since")

    def __init__(self, over: OverLimit, port: MessagePort[Any], position: int) -> None:
        self.over = over
        self.number: float = 0
        """Its place among all who wait, for a keeper that gives it one."""
        self.since = 0.0
        """When it was kept, in monotonic seconds, for a keeper that notes it."""
        self._port = port
        self._position = position
        self._ended = False
        self._expected: int | None = None

    @property
    def action(self) -> Action:
        """The action that keeps it."""
        return self.over.chain[self._position]

    @property
    def client(self) -> Transport:
        """Which client it came from."""
        return self._port.client

    def may_wait(self) -> bool:
        """Tell whether this thread, its caller's, may be blocked."""
        from shield.chain.runner import may_block

        return may_block() and self._port.may_wait()

    def envelope(self) -> Envelope:
        """Return the whole message, without headers of ours but its id and attempt."""
        return self._port.envelope().marked(identity(self.over.message))

    def expect_an_end(self) -> None:
        """Let it go on when its client closes, where its keeper has not ended it by then."""
        self._expected = self.over.engine.hands_on(self.client, self.given_up, inf)

    def given_up(self, cause: Exception) -> None:
        """Let the chain go on where the keeper has done nothing, and its client closes."""
        if self.over.open:
            self.go_on(cause)

    def take_back(self) -> bool:
        """Take it from a keeper that has failed to keep it; False where that has ended it.

        What the keeper still does with it has no effect any more.
        """
        ended, self._ended = self._ended, True
        if self._expected is not None:
            self.over.engine.heard_of(self._expected)
        return not ended

    def send(self, permit: Permit) -> None:
        """Send it through its client: it is admitted. Its future ends as the send does."""
        from shield.chain.runner import send_kept

        if self.take_back():
            send_kept(permit, self._port)
        else:
            permit.cancel()

    def stored(self) -> None:
        """Complete its future: it is durable where it is, and counted as spooled."""
        Retained.all_stored((self,))

    @staticmethod
    def all_stored(batch: Sequence[Retained]) -> None:
        """Complete the futures of many: all are durable where they are, and counted as spooled.

        What a callback of one of the futures raises is logged, and keeps nothing from the others.
        """
        if not batch:
            return
        batch = [kept for kept in batch if kept.take_back()]
        if not batch:
            return
        engine = batch[0].over.engine
        open_ones = engine.keep([kept.over for kept in batch], End.SPOOLED)
        for kept, is_open in zip(batch, open_ones, strict=True):
            if not is_open:
                continue
            try:
                kept._port.succeed()
            except Exception:
                log.exception("a callback of a kept message's future raised")

    def go_on(self, cause: Exception | None = None) -> None:
        """Let the chain go on behind the action that kept it; what ends it ends the future.

        Nobody waits in it: who calls this is not the message's caller.
        """
        from shield.chain.runner import answering, resume_chain

        if not self.take_back():
            return
        with answering():
            resume_chain(self.over, self._port, self._position + 1, cause)
