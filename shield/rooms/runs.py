"""Deliveries that follow each other, offered and acknowledged many at once."""

from __future__ import annotations

from shield.delivery import Delivery
from shield.lines import wake_all
from shield.rooms.core import Room
from shield.verdict import OverLimit, Permit


class Runs(Room):
    """Runs of deliveries: one permit holds what all of them do, and can be taken apart."""

    def takes_runs(self, delivery: Delivery) -> bool:
        """Tell whether deliveries like this one can be decided on together."""
        core = self._core
        per_message = core.watched or core.prepares_received
        flow = core.flow_of(delivery)
        return not per_message and flow.runs and not flow.waits

    def receive_run(self, run: Delivery, now: float | None = None) -> Permit | None:
        """Offer deliveries together: they are admitted as one, or None and nothing has happened.

        Then offer less of them. One alone, or those of which plugins and policies must see each
        (`takes_runs`), are for `receive`.
        """
        core = self._core
        flow = core.received[run.producer, run.destination]
        now = core.now() if now is None else now
        with core.lock:
            if core.answers:
                core.pick_up_answers(now)
            if core.lines or not flow.admits(run, now):
                return None
            permit = core.judge.take(flow, run, now)
            if isinstance(permit, OverLimit):
                return None
            flow.account.offered += run.messages
            flow.account.in_flight += run.messages
            flow.last = run
            return permit

    def split(self, permit: Permit, messages: int, size: int) -> Permit:
        """Return a permit of its own for the first of a run: they are acknowledged, others not.

        Both together hold what the one held before.
        """
        run = permit.message
        assert isinstance(run, Delivery)
        part = Delivery(
            run.destination, size, run.producer, written_s=run.written_s, messages=messages
        )
        with self._core.lock:
            run.messages -= messages
            run.size -= size
        return Permit(permit.flow, part)

    def join(self, permit: Permit, other: Permit) -> None:
        """Let one permit of a run hold what another of the same flow holds too: undoes `split`."""
        run, more = permit.message, other.message
        with self._core.lock:
            other.held = other.open = False
            run.messages += more.messages
            run.size += more.size

    def part_delivered(self, run: Permit, part: Permit | None, size: int) -> Permit:
        """Settle one message of a run as delivered, as `Permit.delivered` does: an answer put down.

        Returns the answer. Handed in again as `part`, it takes the next one too, while nobody has
        picked it up: so messages cost little, and who looks sees each at once.
        """
        if not run.flow.patient:
            part = self.split(run, 1, size)
            part.delivered()
            return part
        core = self._core
        with core.lock:
            run.message.messages -= 1
            run.message.size -= size
            added = part is not None and part.open
            if part is not None and added:
                part.message.messages += 1
                part.message.size += size
        if part is None or not added:
            whole = run.message
            part = Permit(run.flow, Delivery(whole.destination, size, whole.producer))
            part.held = False
            core.answers.append(part)
        if core.lines:
            core.catch_up()
        return part

    def withdraw(self, run: Permit) -> None:
        """Undo that a run was offered: what of it is left was not handed over after all."""
        core = self._core
        with core.lock:
            if not run.open:
                return
            run.held = run.open = False
            core.give_back(run)
            run.flow.account.offered -= run.message.messages
            run.flow.account.in_flight -= run.message.messages
            woken = core.lines.first()
        wake_all(woken)
