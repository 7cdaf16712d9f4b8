"""What carries whole messages: a client's own way to its broker, another broker, a file.

A third party's destination is one class, contributed by `shield_transports` under the scheme of
its URLs: `overflow s3://bucket/orders` then sends there, and `shield redrive s3://bucket/orders`
reads it back.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from shield.envelope import Envelope
from shield.errors import ShieldError
from shield.interrupts import is_from_outside
from shield.plugin_results import error_in, outcome_in, shown
from shield.provisioning import Provisioner
from shield.retention import Retention
from shield.selection import Selection
from shield.signals import Signals
from shield.url import URL
from shield.verdict import Outcome

log = logging.getLogger("shield")

Done = Callable[[Exception | None], None]
"""Told the end of one send: None when it is durable there, else what went wrong."""


class Transport(ABC):
    """Sends whole messages to one place. Used by any number of threads.

    Example:
        >>> class Lines(Transport):
        ...     scheme = "lines"
        ...
        ...     def __init__(self, file):
        ...         self.file = file
        ...
        ...     @classmethod
        ...     def to(cls, url):
        ...         return cls(open(url.path, "ab"))
        ...
        ...     def send(self, envelope, done):
        ...         self.file.write(envelope.body + bytes([10]))
        ...         self.file.flush()
        ...         done(None)
        ...
        ...     def close(self, timeout_s):
        ...         self.file.close()
    """

    scheme: ClassVar[str]
    """The kind of client that this is: `kafka`, `amqp`, `file`."""
    form: ClassVar[str] = ""
    """What its URLs look like, for errors: `kafka://host:port/topic`."""
    roams: bool = False
    """Whether it sends each message where that says itself: its URL names a broker alone."""
    origin: str = ""
    """Which broker it sends to, without credentials; what is kept for it finds it by that."""
    signals: Signals | None = None
    """What the broker tells the client that it sends through, for policies; None for nothing."""

    @classmethod
    def to(cls, url: URL) -> Transport:  # noqa: ARG003 - for who overrides it
        """Return one for a URL, without connecting yet.

        Raises:
            ValueError: the URL is not one of this scheme's; the text says what is allowed.
        """
        raise ShieldError(f"{cls.scheme}:// cannot be sent to")

    @classmethod
    def source(cls, url: URL) -> Source:  # noqa: ARG003 - for who overrides it
        """Return what reads back from there the messages that were sent to this URL.

        Raises:
            ValueError: the URL is not one of this scheme's; the text says what is allowed.
            ShieldError: it cannot be read back.
        """
        raise ShieldError(f"{cls.scheme}:// cannot be read back")

    @classmethod
    def look(cls, url: URL) -> Source:
        """Return what reads the same without changing anything there: for a dry run.

        Where that needs no other code, as on a broker that keeps what is not acknowledged, it is
        the source itself.

        Raises:
            ValueError, ShieldError: as `source`.
        """
        return cls.source(url)

    @classmethod
    def home(cls, url: URL) -> URL:
        """Return the broker that a URL's place is on: what is sent there goes where it says.

        Raises:
            ShieldError: it is on none.
        """
        raise ShieldError(f"{url} is not on a broker that its messages could go to")

    @classmethod
    def reaches(cls, envelope: Envelope) -> Iterable[str]:
        """Return every destination that a message of this kind would reach, as rules match it.

        More than its own where it names others, that get a copy. Raises whatever it likes where
        that cannot be read.
        """
        return (envelope.destination,)

    @classmethod
    def setup(cls, url: URL, partitions: int | None) -> tuple[Provisioner, str] | None:  # noqa: ARG003
        """Return what makes what the place of a URL needs on its broker, and its name there.

        For `shield setup`, as a `shield_setups` does for a rule's own broker. None where nothing
        has to be made.

        Raises:
            ValueError: the URL is not one of this scheme's.
        """
        return None

    def way_back(self, destination: str) -> Source:
        """Return what reads back what this client has sent to a destination on its own broker.

        Raises:
            ShieldError: that cannot be read.
        """
        raise ShieldError(f"{destination!r} cannot be read back")

    @property
    def is_open(self) -> bool:
        """Whether it can still send: whose client is gone, or closed, says False."""
        return True

    @abstractmethod
    def send(self, envelope: Envelope, done: Done) -> None:
        """Begin to send where the URL says, or else where the envelope says.

        `done` is called exactly once: maybe before this returns, maybe on another thread. Must
        not raise, and must not block for more than a moment.
        """

    def keeps(self, envelope: Envelope) -> Retention | None:
        """Return what the place keeps to which it would send that; None where nobody tells.

        May block for some seconds: it is asked once for each destination of a redrive.
        """
        return None

    def may_wait(self) -> bool:
        """Tell whether this thread may be blocked: not where the answers to its sends come in."""
        return True

    def outcome_of(self, error: Exception) -> Outcome:
        """Return what a failed send teaches: OVERLOADED where load explains it, else FAILED.

        Load explains a timeout, and a client's own queue that is full: `BufferError`, as
        confluent-kafka raises it.
        """
        overloaded = isinstance(error, TimeoutError | BufferError)
        return Outcome.OVERLOADED if overloaded else Outcome.FAILED

    def is_hopeless(self, error: Exception) -> bool:
        """Tell whether the message is at fault: sent again, it would fail again.

        By default nothing is: a broker, or the way to it, may be better later.
        """
        return False

    def is_faulty(self, error: Exception) -> bool:
        """Tell whether it is certain that no try will do better, whatever is mended meanwhile.

        A message that no broker would ever take, and not one whose topic is missing: what is
        hopeless is tried some times, what is faulty is given up at once.
        """
        return False

    @abstractmethod
    def close(self, timeout_s: float) -> None:
        """Return when every send has ended, or fail what is left when the time is over."""


def once(done: Done) -> Done:
    """Return a `done` that hears of one end: a transport may answer twice, or answer and raise."""
    unanswered = [done]

    def ended(error: Exception | None) -> None:
        try:
            answered = unanswered.pop()
        except IndexError:
            return
        answered(error_in(error))

    return ended


def is_open(transport: Transport) -> bool:
    """Tell whether it can still send; one that cannot say so cannot."""
    try:
        return bool(transport.is_open)
    except Exception as error:
        if is_from_outside(error):
            raise
        log.warning("%s cannot tell whether it is open: %s", shown(transport), shown(error))
        return False


def outcome_of(transport: Transport, error: Exception) -> Outcome:
    """Return what a failed send teaches; FAILED where the transport cannot say so."""
    try:
        return outcome_in(transport.outcome_of(error))
    except Exception:
        return Outcome.FAILED


def is_hopeless(transport: Transport, error: Exception) -> bool:
    """Tell whether the message is at fault; no where the transport cannot say so."""
    try:
        return transport.is_hopeless(error) is True
    except Exception:
        return False


@dataclass(slots=True, unsafe_hash=True)  # not frozen: that doubles what each costs to make
class Taken:
    """One message read back, with the mark by which its source knows it again."""

    envelope: Envelope
    position: Hashable


class Source(ABC):
    """Where messages are taken from again. Used by one thread, but for `forget`.

    A message that was taken and is not forgotten comes again the next time the source is opened.
    """

    diverted: ClassVar[bool] = True
    """Whether it is read from where messages were diverted to, so that only Shield's headers tell
    where they were going; a source that knows that by itself says False."""

    @property
    def counts_deliveries(self) -> bool:
        """Whether what is taken and comes back is counted there, and lost beyond a limit.

        As in RabbitMQ's quorum queues. Of such a source no more is taken than is about to be
        sent, and a pause keeps what was taken.
        """
        return False

    def look_only(self) -> None:  # noqa: B027 - optional
        """Hear, before the first is taken, that messages are only looked at: all come back."""

    believed: ClassVar[bool] = False
    """Whether nobody else can have written there: what it says of where messages were going is then
    not a stranger's word, as a broker's headers are."""

    @abstractmethod
    def take(self, most: int, timeout_s: float) -> Sequence[Taken]:
        """Return up to so many, oldest first; none where nothing comes in time."""

    @abstractmethod
    def forget(self, taken: Taken) -> None:
        """Note that it is where it belongs, and need not come again. From any thread, any order."""

    def left(self) -> int | None:
        """Return how many have not been taken yet; None where that cannot be told."""
        return None

    def failed(self, taken: Taken) -> None:  # noqa: B027 - optional
        """Note that it did not get there; it stays, and comes again in its turn."""

    def select(self, selection: Selection) -> None:  # noqa: B027 - optional
        """Hear which messages are meant, before the first is taken.

        A source that cannot forget single messages remembers by it, how far those that are
        meant are forgotten: `shield.selection.Mark`.
        """

    def leave(self, taken: Taken) -> None:  # noqa: B027 - optional
        """Note that it is not meant: it stays, and comes again when the source is opened anew."""

    def give_up(self, taken: Taken) -> None:  # noqa: B027 - optional
        """Note that it is meant and cannot be sent now: it, too, comes again, the next time."""

    @abstractmethod
    def close(self) -> None:
        """Make durable what is forgotten, and release the rest."""
