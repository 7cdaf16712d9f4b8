"""What a channel has handed out and its user has not acknowledged, by delivery tag."""

from __future__ import annotations

from shield import Outcome, Permit
from shield_rabbitmq.consuming.batches import BatchShare


class DeliveryTags:
    """Delivery tags of one channel: those that the user has, and those that are kept from him.

    An acknowledgement of "all up to here" means all that were handed over. To the broker it would
    mean also what is held back, or is on its way elsewhere; so it is cut to pieces.
    """

    __slots__ = ("handed", "withheld")

    def __init__(self) -> None:
        self.handed: dict[int, Permit | BatchShare | None] = {}
        """Handed over and not acknowledged; None for what no rule is about."""
        self.withheld: set[int] = set()
        """Given by the broker, and neither handed over nor acknowledged."""

    def up_to(self, tag: int) -> list[int]:
        """Return what was handed over up to that tag; 0 stands for all."""
        return sorted(each for each in self.handed if each <= tag or not tag)

    def pieces(self, tag: int, undispatched: float) -> list[tuple[int, bool]] | None:
        """Return the tags, and for each whether all before are meant, that say "all up to here".

        None where the user's own words say it.

        Args:
            tag: the user's; 0 for all.
            undispatched: the lowest tag that the client has read and not handed over.
        """
        first = min((*self.withheld, undispatched))
        if tag and tag < first:
            return None
        handed = self.up_to(tag)
        before = [each for each in handed if each < first]
        pieces = [(each, False) for each in handed if each > first]
        if before:
            pieces.insert(0, (before[-1], True))
        if tag and tag not in self.handed:
            pieces.append((tag, False))  # what was never handed over: the broker says so
        return pieces

    def settle(self, tags: list[int], outcome: Outcome) -> None:
        """Note what became of them: they are out of the user's hands."""
        for tag in tags:
            permit = self.handed.pop(tag, None)
            if permit is not None:
                permit.settle(outcome)

    def forget(self) -> None:
        """Note that the broker has all of them again."""
        self.settle(list(self.handed), Outcome.FAILED)
        self.withheld.clear()
