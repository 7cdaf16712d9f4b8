"""Settles admitted sends a batch at a time: one callback for many messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shield import Permit
from shield_kafka import internals
from shield_kafka.errors import outcome_of


class Waiting:
    """The messages of one batch that is on its way: permits, and their futures beside them."""

    __slots__ = ("futures", "permits")

    def __init__(self) -> None:
        self.permits: list[Permit] = []
        self.futures: list[Any] = []


class Answers:
    """Keeps the permits of each batch that is on its way, and settles them with its answer.

    A callback on every message costs more than deciding about it does. So only the first message
    of a batch gets one; when the batch was delivered whole, all its permits are settled there. A
    batch that was split is never answered, and its futures point at other batches by then.
    In every other case (an error, some records refused) each message is asked through its own
    future. Where two threads settle the same permit, the second does nothing.

    Args:
        delivered: what to do with the permits of delivered messages.
    """

    def __init__(self, delivered: Callable[[Sequence[Permit]], object]) -> None:
        self._delivered = delivered
        self._batches: dict[Any, Waiting] = {}

    def expect(self, permit: Permit, future: Any) -> None:
        """Settle the permit when the future of its message is known."""
        batch = internals.batch_of(future)
        waiting = self._batches.get(batch)
        if waiting is None:
            mine = Waiting()
            waiting = self._batches.setdefault(batch, mine)
            if waiting is mine:
                future.add_both(self._answered, batch, mine)
        waiting.futures.append(future)
        waiting.permits.append(permit)
        if self._batches.get(batch) is not waiting:
            self._settle(batch, waiting)  # it was answered in between

    def _answered(self, batch: Any, waiting: Waiting, _result: object) -> None:
        self._batches.pop(batch, None)
        self._settle(batch, waiting)

    def _settle(self, batch: Any, waiting: Waiting) -> None:
        permits, futures = waiting.permits[:], waiting.futures[:]
        if internals.was_delivered_whole(batch):
            self._delivered(permits)
            return
        for permit, future in zip(permits, futures, strict=False):
            future.add_callback(self._succeeded, permit)
            future.add_errback(self._failed, permit)

    def _succeeded(self, permit: Permit, _metadata: object) -> None:
        self._delivered((permit,))

    def _failed(self, permit: Permit, error: BaseException) -> None:
        permit.settle(outcome_of(error))
