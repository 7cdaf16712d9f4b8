"""What a consumer's rules say before it asks its broker for anything: nothing is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shield.capabilities import BoundsInFlight, Queues
from shield.delivery import Delivery
from shield.engine.core import Component
from shield.plugin_results import bound_of, seconds_of
from shield.policy import Policy

Number = TypeVar("Number", int, float)


class ConsumeHints(Component):
    """Questions of a consumer: whether, how many at once, and how fast it may receive."""

    def would_receive(self, delivery: Delivery, now: float | None = None) -> bool:
        """Tell whether a delivery like this one would be admitted now. Counts and charges nothing.

        For who has to ask its broker for a message, and rather leaves it there. Somebody else may
        be faster, and what is known of a message only once it is there may still refuse it.
        """
        core = self._core
        flow = core.received[delivery.producer, delivery.destination]
        now = core.now() if now is None else now
        asked = [policy for policy in flow.policies if not policy.rule.shadow]
        with core.lock:
            core.pick_up_answers()
            return all(core.judge.would_admit(policy, delivery, now) for policy in asked)

    def receives(self, destination: str | None, consumer: str) -> bool:
        """Tell whether anything here has a say in what that consumer receives from there.

        A rule that covers it, or a plugin's hook; without a destination, from anywhere. Who is
        told no need not offer its deliveries.
        """
        rules = [rule for rule in self._core.rules if rule.direction == "consume"]
        if destination is None:
            return bool(rules) or self._core.hooks.sees("consume")
        covered = any(rule.covers(destination, consumer, "consume") for rule in rules)
        return covered or self._core.hooks.sees("consume")

    def most_unanswered(self, destination: str, consumer: str) -> int | None:
        """Return how many deliveries from there its rules let be unanswered; None for any."""
        bounds = self._answers_of(
            destination,
            consumer,
            lambda policy: (
                bound_of(policy.max_in_flight()) if isinstance(policy, BoundsInFlight) else None
            ),
        )
        return min(bounds, default=None)

    def pace_s(self, destination: str, consumer: str, size: int) -> float:
        """Return how many seconds its rules take to admit one delivery of so many bytes; or 0."""
        times = self._answers_of(
            destination,
            consumer,
            lambda policy: (
                seconds_of(policy.drain_time_s(1, size)) if isinstance(policy, Queues) else None
            ),
        )
        return max(times, default=0.0)

    def _answers_of(
        self, destination: str, consumer: str, question: Callable[[Policy], Number | None]
    ) -> list[Number]:
        """Ask each policy that may refuse what a consumer receives from there; not None is said."""
        answers: list[Number] = []
        for rule in self._core.rules:
            if rule.shadow or not rule.covers(destination, consumer, "consume"):
                continue
            for policy in rule.policies:
                try:
                    answer = question(policy)
                except Exception as error:
                    self._core.hooks.failed(policy, error)
                    continue
                if answer is not None:
                    answers.append(answer)
        return answers
