"""Ends that a Kafka transaction decides: counted when it commits or aborts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from shield import End, Outcome, Permit, Shield
from shield.accounts import Account


class Transaction:
    """Holds the ends of a transaction's answered messages until its fate is known.

    Until then the ledger has them in flight. A commit counts each as what it is; an abort counts
    all as failed, because no reader of committed messages will see them.
    """

    def __init__(self, shield: Shield) -> None:
        self._shield = shield
        self._lock = threading.Lock()
        self._ends: Counter[tuple[Account, End]] = Counter()

    def delivered(self, permits: Sequence[Permit]) -> None:
        """Release what answered messages held; their end waits for the transaction's."""
        for permit in permits:
            if permit.answer(Outcome.DELIVERED):
                self.add(permit.flow.account, End.DELIVERED)

    def add(self, account: Account, end: End) -> None:
        """Remember the end of one message that the broker has answered."""
        with self._lock:
            self._ends[account, end] += 1

    def commit(self) -> None:
        """Count what the transaction held."""
        for (account, end), messages in self._take().items():
            self._shield.engine.count(account, end, messages)

    def abort(self) -> None:
        """Count what the transaction held as failed."""
        for (account, _), messages in self._take().items():
            self._shield.engine.count(account, End.FAILED, messages)

    def _take(self) -> Counter[tuple[Account, End]]:
        with self._lock:
            ends, self._ends = self._ends, Counter()
        return ends
