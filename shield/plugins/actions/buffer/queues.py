"""What is buffered of each client: queues, and who waits until they are empty."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Hashable
from math import inf

from shield import Action
from shield.algorithms.codel import Codel
from shield.chain.retained import Retained
from shield.engine.queueing.wait_queue import Waiter


class RetainingAction(Action):
    """An action whose messages are in a drain."""

    @abstractmethod
    def released(self, kept: Retained) -> None:
        """Hear that a message has left: it is sent, or has gone on."""

    def queue_delay(self) -> Codel | None:
        """Return a new watch over how long messages are kept in one queue; None where no matter."""
        return None


class BufferQueue:
    """Messages of one client that compete for the same, oldest first.

    One waiter stands in line for all of them, for the first by its number; so that newcomers,
    whose numbers are higher, stay behind, and others' queues have their turn in between.
    """

    __slots__ = ("delays", "due", "end", "kept", "key", "ready", "sending", "waiter")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.kept: deque[Retained] = deque()
        self.delays: dict[Action, Codel | None] = {}
        """What watches how long each action's messages are kept here."""
        self.waiter: Waiter | None = None
        self.sending: Retained | None = None
        """A message that has left it and for which its waiter still stands: until the client has
        it, nobody overtakes."""
        self.end: Callable[[], None] | None = None
        """What ends that one, where a policy wants it held back until it is due."""
        self.due = -inf
        """When its first may be admitted; `inf` where somebody will wake it."""
        self.ready = False
        """Whether it is to be looked at."""

    def delay_of(self, kept: Retained) -> Codel | None:
        """Return what watches how long messages like this one are kept here, if anything does."""
        keeper = kept.action
        assert isinstance(keeper, RetainingAction)
        if keeper not in self.delays:
            self.delays[keeper] = keeper.queue_delay()
        return self.delays[keeper]


class FlushMark:
    """Somebody waits until those messages of a client are gone that are there now."""

    __slots__ = ("gone", "left", "number", "until")

    def __init__(self, number: float, left: int, until: float) -> None:
        self.number = number
        self.left = left
        self.until = until
        """Given up as soon as nothing can be admitted before that."""
        self.gone = threading.Event()


class ClientBacklog:
    """What is kept of one client."""

    __slots__ = ("last", "marks", "messages", "queues")

    def __init__(self) -> None:
        self.messages = 0
        self.queues: dict[BufferQueue, None] = {}
        self.marks: list[FlushMark] = []
        self.last: Retained
