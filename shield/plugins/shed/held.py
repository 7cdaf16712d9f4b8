"""How many places those of each criticality hold."""

from __future__ import annotations

from shield import Message
from shield.plugins.shed.criticality import NAMES


class Held:
    """Counts what is unanswered by its rank, which it remembers: headers may change. Not locked."""

    __slots__ = ("_by_rank", "_ranks")

    def __init__(self) -> None:
        self._ranks: dict[Message, int] = {}
        self._by_rank = [0] * len(NAMES)

    def __len__(self) -> int:
        return len(self._ranks)

    def take(self, message: Message, rank: int) -> None:
        """Count one more."""
        self._ranks[message] = rank
        self._by_rank[rank] += 1

    def release(self, message: Message) -> None:
        """Count one less."""
        self._by_rank[self._ranks.pop(message)] -= 1

    def up_to(self, rank: int) -> int:
        """Return how many are of that rank or below."""
        return sum(self._by_rank[: rank + 1])
