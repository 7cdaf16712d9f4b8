"""A client without a broker: a test answers its sends by hand."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from shield.action import Divert
from shield.headers import diverted
from shield.ledger import End
from shield.message import Message
from shield.shield import Shield
from shield.sync import react
from shield.verdict import Outcome, OverLimit, Permit

Answered = Callable[[Exception | None], None]


@dataclass(frozen=True)
class FakeRecord:
    """One message as the client sends it."""

    destination: str
    body: bytes
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeClient:
    """A synchronous publishing client under Shield whose sends are answered by hand.

    Results are `concurrent.futures.Future`s of the record that was stored, so that `shield.fate`
    tells of them; a dropped message's is done at once with None. `arrived` holds what the fake
    broker has stored, by destination.

    Args:
        shield: whose rules apply.
        producer: the client's name.
    """

    def __init__(self, shield: Shield, producer: str = "fake") -> None:
        self.shield = shield
        self.producer = producer
        self.arrived: defaultdict[str, list[FakeRecord]] = defaultdict(list)
        self.missing: set[str] = set()
        """Destinations to which no send can even begin: ConnectionError."""
        self._unanswered: deque[tuple[FakeRecord, Answered]] = deque()
        self._answering = threading.local()

    def publish(
        self,
        destination: str,
        body: bytes,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Future[FakeRecord | None]:
        """Publish within the quotas; the future completes when the send is answered.

        Raises:
            TypeError: the body is no bytes; no quota was charged.
            OverLimitError: the chain says so.
        """
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes; found {body!r}")
        record = FakeRecord(destination, body, key, headers or {})
        size = len(body) + len(key or b"")
        verdict = self.shield.admit(Message(destination, size, self.producer, key, record.headers))
        outlet = FakeOutlet(self, record)
        if isinstance(verdict, OverLimit):
            return react(verdict, outlet)
        return outlet.send(verdict)

    @property
    def unanswered(self) -> list[FakeRecord]:
        """The sends that have no answer, oldest first."""
        return [record for record, _ in self._unanswered]

    def ack(self, sends: int | None = None) -> None:
        """Answer the oldest sends, or all there are now: stored."""
        for record, answered in self._oldest(sends):
            self.arrived[record.destination].append(record)
            self._answer(answered, None)

    def fail(self, error: Exception | None = None, sends: int | None = None) -> None:
        """Answer the oldest sends, or all there are now: failed; a TimeoutError is overload."""
        for _, answered in self._oldest(sends):
            self._answer(answered, error or TimeoutError("the fake broker does not answer"))

    def close(self) -> None:
        """Fail what is unanswered, and what chains send then, until nothing is left."""
        while self._unanswered:
            self.fail(ConnectionError("closed"))

    def begin(self, record: FakeRecord, answered: Answered) -> None:
        """Put a record before the fake broker; ConnectionError where that cannot begin."""
        if record.destination in self.missing:
            raise ConnectionError(f"{record.destination} is not there")
        self._unanswered.append((record, answered))

    def may_wait(self) -> bool:
        """Tell whether this thread may be blocked: not while it answers sends."""
        return not getattr(self._answering, "now", False)

    def _oldest(self, sends: int | None) -> Iterator[tuple[FakeRecord, Answered]]:
        for _ in range(len(self._unanswered) if sends is None else sends):
            try:
                oldest = self._unanswered.popleft()
            except IndexError:  # another thread was faster
                return
            yield oldest

    def _answer(self, answered: Answered, error: Exception | None) -> None:
        self._answering.now = True
        try:
            answered(error)
        finally:
            self._answering.now = False


class FakeOutlet:
    """Carries out the steps of a chain for one record of a `FakeClient`."""

    def __init__(self, client: FakeClient, record: FakeRecord) -> None:
        self._client = client
        self._record = record
        self._future: Future[FakeRecord | None] = Future()

    def send(self, permit: Permit) -> Future[FakeRecord | None]:
        """Send where it was going."""

        def answered(error: Exception | None) -> None:
            if error is None:
                permit.delivered()
                self._future.set_result(self._record)
            else:
                permit.settle(_outcome_of(error))
                self._future.set_exception(error)

        self._mark("sent")
        try:
            self._client.begin(self._record, answered)
        except BaseException:
            permit.cancel()
            raise
        return self._future

    def drop(self, over: OverLimit) -> Future[FakeRecord | None]:
        """Return a future that is done, with None."""
        self._mark("dropped")
        self._future.set_result(None)
        return self._future

    def divert(
        self, over: OverLimit, step: Divert, position: int
    ) -> Future[FakeRecord | None] | None:
        """Send to the step's destination; None where that cannot begin."""
        headers = {**self._record.headers, **diverted(over)}
        record = replace(self._record, destination=step.destination, headers=headers)

        def answered(error: Exception | None) -> None:
            step.done()
            if error is None:
                over.end(End.OVERFLOWED)
                self._future.set_result(record)
            else:
                self._go_on(over, position + 1, error)

        self._mark("overflowed")
        try:
            self._client.begin(record, answered)
        except ConnectionError:
            step.done()
            return None
        return self._future

    def _go_on(self, over: OverLimit, position: int, error: Exception) -> None:
        """Run the rest of the chain: the overflow send failed. What ends it ends the future."""
        try:
            react(over, self, position)
        except Exception as raised:
            raised.__cause__ = raised.__cause__ or error
            self._future.set_exception(raised)

    def may_wait(self) -> bool:
        """Anywhere but where sends are answered."""
        return self._client.may_wait()

    def error(self, over: OverLimit) -> Exception:
        """Return Shield's own error: this client has none that its users catch."""
        return over.error()

    def _mark(self, fate: str) -> None:
        self._future.shield_fate = fate  # type: ignore[attr-defined] # what shield.fate reads


def _outcome_of(error: Exception) -> Outcome:
    return Outcome.OVERLOADED if isinstance(error, TimeoutError) else Outcome.FAILED
