"""A message on its way through the write thread, and who waits to hear of it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from shield.promise import Promise
from shield_rabbitmq.parcel import Parcel


class Confirm(Promise[None]):
    """What `publish` returns. It cannot be cancelled: the message may be on the wire already."""

    def cancel(self) -> bool:
        """Return False, as a future that is running does."""
        return False


class Sending(ABC):
    """One parcel on its way; `finish` is called exactly once, mostly on the write thread."""

    __slots__ = ("parcel", "returned", "written_at")

    written_at: float
    """When it was written, in the Shield's monotonic seconds."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        self.returned: Exception | None = None
        """Set where the broker has returned it; the ack that follows means that."""

    @property
    def declares(self) -> bool:
        """Whether its exchange is to be made, with a queue, where it is missing."""
        return False

    @abstractmethod
    def finish(self, error: Exception | None) -> None:
        """Take the answer: None for confirmed, or what went wrong."""
