"""Messages that are set aside: kept in memory or on disk, or on their way elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from shield.accounts import End
from shield.engine.answer_timeouts import GiveUp
from shield.engine.core import Component
from shield.engine.queueing.wait_queue import wake_all
from shield.events import END_KINDS
from shield.message import Message
from shield.transport import Transport
from shield.verdict import OverLimit


class Diversion(Component):
    """What the books and the policies know of them, until they come back or have their end."""

    def hold(self, over: OverLimit) -> bool:
        """Tell policies that a message is being set aside, before it is; False where it was."""
        core, message = self._core, over.message
        if message.aside:
            return False
        message.aside = True
        if not over.flow.holders:
            return True
        with core.lock:
            core.hooks.tell(over.flow.on_diverted, message)
        return True

    def unhold(self, over: OverLimit) -> None:
        """Tell policies that a message is not set aside after all: that could not begin."""
        core = self._core
        with core.lock:
            core.let_go(over.flow, over.message, End.FAILED)
            woken = core.lines.first_released() if over.flow.holders else []
        wake_all(woken)

    def keep(self, overs: Sequence[OverLimit], where: End) -> list[bool]:
        """Count over-limit messages as kept there; False for each that has had its end."""
        core = self._core
        with core.lock:
            open_ones = [over.open for over in overs]
            for over in overs:
                if over.open:
                    over.flow.account.keep(over, where)
                if where is End.SPOOLED:  # nobody ends it any more: what is read back is another
                    core.claims.discard(over)
        if core.hooks.observers:
            for over, was_open in zip(overs, open_ones, strict=True):
                if was_open:
                    core.hooks.report(END_KINDS[where], over.message, over)
        return open_ones

    def parked(self, message: Message) -> None:
        """Tell policies that a message stays set aside for good, so that it holds up no other."""
        core, flow = self._core, self._core.flow_of(message)
        with core.lock:
            message.aside = True
            core.let_go(flow, message, End.FAILED)
            woken = core.lines.first_released() if flow.holders else []
        wake_all(woken)

    def hands_on(self, client: Transport, give_up: GiveUp, limit_s: float | None = None) -> int:
        """Note that somebody has a message, and is to answer for it in time; return its number.

        `give_up` is called where nobody has done so by then, or when its client closes.
        """
        return self._core.unanswered.expect(client, give_up, limit_s)

    def heard_of(self, number: int) -> None:
        """Note that it was answered for."""
        self._core.unanswered.answered(number)

    def found(self, message: Message, where: End, messages: int = 1, holds: bool = True) -> None:
        """Count messages like this one that an earlier process left there, as offered and kept.

        What holds has later ones of its key stay behind it.
        """
        core = self._core
        flow = core.flow_of(message)
        with core.lock:
            flow.account.offered += messages
            flow.account.in_flight += messages
            flow.account.move("in_flight", where, messages)
            message.aside = True
            for _ in range(messages if holds and flow.holders else 0):
                core.hooks.tell(flow.on_diverted, message)
