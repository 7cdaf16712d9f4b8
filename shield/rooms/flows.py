"""Finds what applies to a message, compiled once for each producer and destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shield.flow import Flow

if TYPE_CHECKING:
    from shield.rooms.core import Core

MAX_FLOWS = 10_000


class Flows(dict[tuple[str, str], Flow]):
    """The flows of one direction, by producer and destination; past 10,000 it begins anew."""

    def __init__(self, direction: str, core: Core) -> None:
        super().__init__()
        self._direction = direction
        self._core = core

    def __missing__(self, key: tuple[str, str]) -> Flow:
        """Compile the rules that cover messages of this producer to this destination."""
        producer, destination = key
        direction, core = self._direction, self._core
        covering = [r for r in core.rules if r.covers(destination, producer, direction)]
        names = tuple(rule.name for rule in covering)
        policies = (policy for rule in covering for policy in rule.policies)
        with core.lock:
            flow = Flow(core.shield, policies, core.books.account(names, producer, direction))
            if len(self) >= MAX_FLOWS:
                self.clear()
            self[key] = flow
        return flow
