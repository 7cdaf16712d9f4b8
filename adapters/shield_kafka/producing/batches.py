"""Answers to sends, a batch at a time: one callback for many messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from shield_kafka.client import internals

Claim = TypeVar("Claim")
Item = TypeVar("Item")


class BatchAnswers(Generic[Claim]):
    """Keeps the claims of each batch that is on its way, and answers them when that is.

    A callback on every message costs more than deciding about it does. So only the first message
    of a batch gets one; when the batch was delivered whole, all its claims are answered there. A
    batch that was split is never answered, and its futures point at other batches by then.
    In every other case (an error, some records refused) each message is asked through its own
    future. A claim is answered once, also where a batch is answered while a message joins it.

    Args:
        delivered: what to do with the claims of delivered messages.
        failed: what to do with the claim of one that failed, with its error.
    """

    def __init__(
        self,
        delivered: Callable[[Sequence[Claim]], object],
        failed: Callable[[Claim, BaseException], object],
    ) -> None:
        self._delivered = delivered
        self._failed = failed
        self._batches: dict[Any, deque[tuple[Claim, Any]]] = {}
        """What waits for each batch that is on its way: claims, with their messages' futures."""

    def expect(self, claim: Claim, future: Any) -> None:
        """Answer the claim when the future of its message is known."""
        waiting = self.waiting(future)
        waiting += ((claim, future),)
        self.joined(future, waiting)

    # In its parts: who counts claims that cannot be told from each other puts them down itself. An
    # exception from outside strikes after a call, so that `+=` is done where the next line is.

    def waiting(self, future: Any) -> deque[tuple[Claim, Any]]:
        """Return where the claims of a future's batch wait."""
        batch = internals.batch_of(future)
        waiting = self._batches.get(batch)
        if waiting is None:
            mine: deque[tuple[Claim, Any]] = deque()
            try:
                waiting = self._batches.setdefault(batch, mine)
                if waiting is mine:
                    future.add_both(self._answered, batch)
            except BaseException:  # or those that join it would wait for no answer
                future.add_both(self._answered, batch)
                raise
        return waiting

    def joined(self, future: Any, waiting: deque[tuple[Claim, Any]]) -> None:
        """Note that a claim was put down; where its batch was answered in between, answer it."""
        batch = internals.batch_of(future)
        if self._batches.get(batch) is not waiting:
            self._settle(batch, waiting)

    def expect_once(
        self, claim: Claim, future: Any, waiting: deque[tuple[Claim, Any]] | None
    ) -> None:
        """Expect what may wait there already: its putting down was interrupted."""
        if waiting is None:
            future.add_callback(self._succeeded, claim)
            future.add_errback(partial(self._failed, claim))
        else:
            self.joined(future, waiting)

    def _answered(self, batch: Any, _result: object) -> None:
        waiting = self._batches.pop(batch, None)
        if waiting is not None:
            self._settle(batch, waiting)

    def _settle(self, batch: Any, waiting: deque[tuple[Claim, Any]]) -> None:
        taken = list(_taken_from(waiting))
        if internals.was_delivered_whole(batch):
            self._delivered([claim for claim, _ in taken])
            return
        for claim, future in taken:
            future.add_callback(self._succeeded, claim)
            future.add_errback(partial(self._failed, claim))

    def _succeeded(self, claim: Claim, _metadata: object) -> None:
        self._delivered((claim,))


def _taken_from(waiting: deque[Item]) -> Iterator[Item]:
    """Take all there is out of a queue that other threads may be taking from as well."""
    while waiting:
        try:
            yield waiting.popleft()
        except IndexError:
            return
