"""The shape of policies that refuse by chance."""

from __future__ import annotations

import random
from abc import abstractmethod
from typing import Any, ClassVar

from shield import Message, Policy, Refusal, Rule
from shield.capabilities import Randomized, SelectsVictims


class ByChance(Policy, Randomized):
    """Refuses the messages whose draw is below its rejection share.

    Chance is drawn once for a message, so that who asks again gets the same answer until the share
    has changed. Beside a policy that selects victims it refuses nothing: that one does.
    """

    reason: ClassVar[str]
    """Of its refusals."""

    def __init__(self, settings: Any, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._beside_chooser: bool | None = None
        self.random = random.random
        """Where chance decides; tests put a sequence of their own here."""

    @abstractmethod
    def retry_after_s(self, now: float) -> float:
        """Return when to ask again after a refusal."""

    def draw(self, message: Message) -> float:
        """Return the draw of a message that is offered: 0 to 1, the same however often."""
        if message.draw is None:
            message.draw = self.random()
        return message.draw

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit unless the draw is against it; one that was not offered anew draws the lowest."""
        if self._beside_chooser is None:
            self._beside_chooser = any(
                isinstance(policy, SelectsVictims) for policy in self.rule.policies
            )
        if self._beside_chooser:
            return None
        share = self.rejection_share(message, now)
        if share <= 0.0 or (message.draw or 0.0) >= share:
            return None
        return Refusal(self, self.reason, self.retry_after_s(now))
