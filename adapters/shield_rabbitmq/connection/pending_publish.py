"""A message on its way through the write thread, and who waits to hear of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

from shield import Refusal
from shield.clients.client_transport import answer_all
from shield.clients.future import LazyFuture
from shield.transport import Done
from shield_rabbitmq.client.frames import Frames


class Confirm(LazyFuture[None]):
    """What `publish` returns. It cannot be cancelled: the message may be on the wire already."""

    withdrawn = False
    """Whether its caller is gone, and it is not to be sent any more."""

    def cancel(self) -> bool:
        """Return False, as a future that is running does."""
        return False


class PendingPublish(ABC):
    """One message on its way; its end is called exactly once, mostly on the write thread."""

    __slots__ = ("frames", "returned", "written_at")

    may_decline: bool = False
    """Whether it can go another way, and so need not wait while the broker takes no messages."""
    written_at: float
    """When it was written, in the Shield's monotonic seconds."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.returned: Exception | None = None
        """Set where the broker has returned it; the ack that follows means that."""

    @property
    def declares(self) -> bool:
        """Whether its exchange is to be made, with a queue, where it is missing."""
        return False

    # A message that policies may refuse while it waits to be written says so.

    @property
    def waits(self) -> Hashable:
        """What it waits with: policies that may refuse it yet; None where none may."""
        return None

    def refusal(self, waited_s: float, now: float) -> Refusal | None:
        """Return why it may wait no longer where it stands first; None where it may."""
        return None

    def newest_first(self, now: float) -> bool:
        """Tell whether of those that wait with it the newest is to be written first."""
        return False

    def leaves(self, waited_s: float, now: float) -> None:  # noqa: B027 - for who counts it
        """Hear that it is being written."""

    def refuse(self, refusal: Refusal) -> None:
        """End it here: it is over the limit, and its chain goes on. Instead of `finish`."""
        raise NotImplementedError

    @abstractmethod
    def finish(self, error: Exception | None) -> None:
        """Take the answer: None for confirmed, or what went wrong."""


class EnvelopePublish(PendingPublish):
    """An envelope that a redrive, or another client's overflow, has handed over."""

    __slots__ = ("_done", "may_decline")

    def __init__(self, frames: Frames, done: Done, *, may_decline: bool = False) -> None:
        super().__init__(frames)
        self._done = done
        self.may_decline = may_decline

    def finish(self, error: Exception | None) -> None:
        """Tell who sent it; what that raises is not to end the connection of all others."""
        answer_all((self._done,), error)


class OverflowPublish(PendingPublish):
    """A message on its way to an overflow exchange."""

    __slots__ = ("_declares", "_ended")
    may_decline = True

    def __init__(self, frames: Frames, declares: bool, ended: Done) -> None:
        super().__init__(frames)
        self._declares = declares
        self._ended = ended

    @property
    def declares(self) -> bool:
        """Whether the rule says so."""
        return self._declares

    def finish(self, error: Exception | None) -> None:
        """Tell who diverted it."""
        self._ended(error)


class Probe(PendingPublish):
    """An empty message to no queue: its confirm tells that the broker takes messages.

    RabbitMQ says that it does not only to a connection that has sent one, and holds that one.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Frames("", "shield.probe", b"", None, mandatory=False))

    def finish(self, error: Exception | None) -> None:
        """Nobody waits for it."""
