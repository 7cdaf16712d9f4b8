"""One message of a client while a chain is run for it: what the chain may ask the client to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from shield.accounts import End
from shield.action import Divert
from shield.clients.future import LazyFuture
from shield.envelope import Envelope
from shield.errors import OverLimitError
from shield.transport import Done, Transport
from shield.verdict import OverLimit, Permit

Result = TypeVar("Result")
OwnFuture = TypeVar("OwnFuture", bound=LazyFuture[Any])


class MessagePort(ABC, Generic[Result]):
    """Carries out the steps of a chain for one message; it owns that message's send.

    An adapter derives from it, once for each of its clients. The chain runner calls the port, and
    the port calls the client. A message whose caller has gone on with a future has one port all
    the time: `pending` makes that future, once, and `succeed`, `fail` or `follow` completes it.
    """

    __slots__ = ()

    over_limit_error: ClassVar[type[OverLimitError]] = OverLimitError
    """What `raise` raises: an OverLimitError that this client's users catch already."""

    @property
    @abstractmethod
    def client(self) -> Transport:
        """The client, as what is kept goes back through it."""

    @abstractmethod
    def send(self, permit: Permit) -> Result:
        """Send where it was going; settle the permit when the client knows, also on errors."""

    @abstractmethod
    def divert(self, over: OverLimit, step: Divert, ended: Done) -> Result | None:
        """Send to the step's destination, or return None where that cannot even begin.

        `ended` is to be called when the send has ended, from any thread: with None where it is
        there, else with what went wrong. More calls than one do no harm.
        """

    @abstractmethod
    def may_wait(self) -> bool:
        """Tell whether this thread may be blocked; a client's own I/O thread may not."""

    @abstractmethod
    def envelope(self) -> Envelope:
        """Return the whole message, as it can be kept on disk or sent through any transport."""

    @abstractmethod
    def pending(self, fate: str) -> Result:
        """Return the caller's result, to be completed later; `fate` is what `shield.fate` says."""

    @abstractmethod
    def succeed(self) -> None:
        """Complete the pending result: the message is safe where its fate says."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Complete the pending result with an error; its fate stays."""

    def follow(self, result: Result) -> None:
        """Complete the pending result as this one ends.

        Its fate, too, is that one's, but what was `buffered` stays so. Nothing to do where a
        message has one future throughout.
        """

    def drop(self, over: OverLimit) -> Result:
        """Return the client's kind of result, done and marked as dropped."""
        result = self.pending("dropped")
        self.succeed()
        return result

    def may_leave(self) -> bool:
        """Tell whether it may go another way than through this client; not in a transaction."""
        return True

    def overflowed(self, over: OverLimit) -> None:
        """Count that a diverted message has arrived; in a transaction, when that has its end."""
        over.end(End.OVERFLOWED)

    def error(self, over: OverLimit) -> Exception:
        """Return what to raise where the chain says so, or has run out."""
        return over.error(self.over_limit_error)


class FuturePort(MessagePort[OwnFuture]):
    """A port whose message has one future of ours from the first to the last.

    Args:
        future: what the client's publish returns.
    """

    __slots__ = ("future",)

    def __init__(self, future: OwnFuture) -> None:
        self.future = future

    def pending(self, fate: str) -> OwnFuture:
        """Return the future, with its fate for `shield.fate`."""
        self.future.shield_fate = fate
        return self.future

    def succeed(self) -> None:
        """Complete the future with None: no send of the client's own has ended it."""
        self.future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Fail the future."""
        self.future.set_exception(error)
