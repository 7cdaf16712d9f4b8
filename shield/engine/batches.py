"""Deliveries that follow each other, offered and acknowledged many at once."""

from __future__ import annotations

from shield.delivery import Delivery
from shield.engine.claims import WITHDRAWN
from shield.engine.core import Component
from shield.engine.queueing.wait_queue import wake_all
from shield.verdict import Permit


class Batches(Component):
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
        account, messages = flow.account, run.messages
        with core.lock:
            core.pick_up_answers(now)
            if core.lines or not flow.admits(run, now):
                return None
            permit = core.judge.take(flow, run, now)
            if not permit.admits:
                return None
            account.offered += messages
            account.in_flight += messages
            flow.last = run
        return permit  # type: ignore[return-value]

    def split(self, permit: Permit, messages: int, size: int) -> Permit:
        """Return a permit of its own for the first of a run: they are acknowledged, others not.

        Both together hold what the one held before.
        """
        run = permit.message
        assert isinstance(run, Delivery)
        part = Delivery(
            run.destination, size, run.producer, written_s=run.written_s, messages=messages
        )
        split = Permit(permit.flow, part)
        with self._core.lock:
            run.messages -= messages
            run.size -= size
            self._core.claims.add(split)
        return split

    def join(self, permit: Permit, other: Permit) -> None:
        """Let one permit of a run hold what another of the same flow holds too: undoes `split`."""
        run, more = permit.message, other.message
        with self._core.lock:
            other.held = other.open = False
            run.messages += more.messages
            run.size += more.size
            self._core.claims.discard(other)

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
        whole = run.message
        with core.lock:
            if part is None or not part.open:
                part = Permit(run.flow, Delivery(whole.destination, 0, whole.producer, messages=0))
                part.held = False
                core.answers.append(part)
            told = part.message
            whole.messages -= 1
            whole.size -= size
            told.messages += 1
            told.size += size
        if core.lines:
            core.catch_up()
        return part

    def withdraw(self, run: Permit) -> None:
        """Undo that a run was offered: what of it is left was not handed over after all."""
        core = self._core
        with core.lock:
            if not run.open:
                return
            core.conclude(run, None, WITHDRAWN, core.now())
            woken = core.lines.first()
        wake_all(woken)
