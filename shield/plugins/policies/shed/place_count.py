"""How many places those of each criticality hold."""

from __future__ import annotations

from shield import Message
from shield.plugins.policies.shed.criticality import NAMES


class PlaceCount:
    """Counts what is unanswered by its rank, which it remembers: headers may change. Not locked."""

    __slots__ = ("by_rank", "ranks")

    def __init__(self) -> None:
        self.ranks: dict[Message, int] = {}
        """That of each message."""
        self.by_rank = [0] * len(NAMES)
        """How many have it."""

    def __len__(self) -> int:
        return len(self.ranks)

    def up_to(self, rank: int) -> int:
        """Return how many are of that rank or below."""
        return sum(self.by_rank[: rank + 1])
