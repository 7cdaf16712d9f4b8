"""Settles admitted sends a batch at a time: one callback for many messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from shield import Permit
from shield_kafka import internals
from shield_kafka.errors import outcome_of

Waiting = deque[tuple[Permit, Any]]


class Answers:
    """Keeps the permits of each batch that is on its way, and settles them with its answer.

    A callback on every message costs more than deciding about it does. So only the first message
    of a batch gets one; when the batch was delivered whole, all its permits are settled there.
    In every other case (an error, some records refused, a batch that was split and so is never
    answered) each message is asked through its own future.

    Args:
        delivered: what to do with the permit of a delivered message.
    """

    def __init__(self, delivered: Callable[[Permit], object]) -> None:
        self._delivered = delivered
        self._batches: dict[Any, Waiting] = {}

    def expect(self, permit: Permit, future: Any) -> None:
        """Settle the permit when the future of its message is known."""
        batch = internals.batch_of(future)
        waiting = self._batches.get(batch)
        if waiting is None:
            mine: Waiting = deque()
            waiting = self._batches.setdefault(batch, mine)
            waiting.append((permit, future))
            if waiting is mine:
                future.add_both(self._answered, batch, mine)
        else:
            waiting.append((permit, future))
        if self._batches.get(batch) is not waiting:
            self._settle(batch, waiting)  # it was answered in between

    def _answered(self, batch: Any, waiting: Waiting, _result: object) -> None:
        self._batches.pop(batch, None)
        self._settle(batch, waiting)

    def _settle(self, batch: Any, waiting: Waiting) -> None:
        whole = internals.was_delivered_whole(batch)
        while waiting:
            try:
                permit, future = waiting.popleft()
            except IndexError:
                return  # another thread has taken the last one
            if whole and internals.batch_of(future) is batch:
                self._delivered(permit)
            else:
                future.add_callback(self._succeeded, permit)
                future.add_errback(self._failed, permit)

    def _succeeded(self, permit: Permit, _metadata: object) -> None:
        self._delivered(permit)

    def _failed(self, permit: Permit, error: BaseException) -> None:
        permit.settle(outcome_of(error))
