"""`slots`: so many messages of one customer may be unanswered at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import PositiveInt

import shield


class Slots(shield.Policy):
    """Refuses a message while its customer has as many in flight as are allowed.

    `slots = { header = "customer", most = 10 }`. Messages without that header share their slots.
    Bad at bounding bytes: a large message takes one slot, as a small one does.
    """

    class Settings(shield.StrictModel):
        """Who shares slots, and how many there are."""

        header: str = "customer"
        most: PositiveInt = 10

    shorthand = "most"

    def __init__(self, settings: Settings, rule: shield.Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._taken: Counter[str | bytes | None] = Counter()

    def check(self, message: shield.Message, now: float) -> shield.Refusal | None:
        """Refuse where no slot is free; only an answer can free one, so no time is named."""
        if self._taken[self._customer(message)] < self.settings.most:
            return None
        return self.refuse("no free slot")

    def acquire(self, message: shield.Message, now: float) -> None:
        """Occupy a slot."""
        self._taken[self._customer(message)] += 1

    def cancel(self, message: shield.Message) -> None:
        """Free the slot of a message whose send never began."""
        self._free(message)

    def release(self, message: shield.Message, outcome: shield.Outcome, now: float) -> None:
        """Free the slot of a message that has its answer, whatever that was."""
        self._free(message)

    def _customer(self, message: shield.Message) -> Any:
        return message.header(self.settings.header)

    def _free(self, message: shield.Message) -> None:
        customer = self._customer(message)
        if self._taken[customer] > 1:
            self._taken[customer] -= 1
        else:
            del self._taken[customer]  # who has nothing in flight costs no memory
