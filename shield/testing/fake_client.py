"""A client without a broker: a test answers its sends by hand."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from shield.action import Divert
from shield.chain.runner import hold_back, run_chain
from shield.clients.fate import fate
from shield.clients.future import LazyFuture
from shield.clients.pending import FuturePort
from shield.envelope import Envelope
from shield.headers import diverted, split_sent
from shield.message import Message, added_headers
from shield.shield import Shield
from shield.signals import Signals
from shield.transport import Done, Transport
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
        self.signals = Signals(shield.clock.now, shield.engine.signals_changed)
        """What policies see as this client's signals; a test writes them, then calls `changed`."""
        self.transport = FakeTransport(self)
        self._unanswered: deque[tuple[FakeRecord, Answered]] = deque()
        self._answering = threading.local()
        shield.engine.opened(self.transport)

    def publish(
        self,
        destination: str,
        body: bytes,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> LazyFuture[FakeRecord | None]:
        """Publish within the quotas; the future completes when the send is answered.

        Raises:
            TypeError: the body is no bytes; no quota was charged.
            OverLimitError: the chain says so.
        """
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes; found {body!r}")
        record = FakeRecord(destination, body, key, headers or {})
        size = len(body) + len(key or b"")
        message = Message(
            destination, size, self.producer, key, record.headers, signals=self.signals
        )
        verdict = self.shield.admit(message)
        record = replace(record, headers={**record.headers, **_texts(added_headers(message))})
        port = FakePort(self, record)
        if isinstance(verdict, OverLimit):
            return run_chain(verdict, port)
        return port.send(verdict)

    @property
    def unanswered(self) -> list[FakeRecord]:
        """The sends that have no answer, oldest first."""
        now = list(self._unanswered)  # other threads may send and answer
        return [record for record, _ in now]

    def ack(self, sends: int | None = None) -> None:
        """Answer the oldest sends, or all there are now: stored."""
        for record, answered in self._oldest(sends):
            self.arrived[record.destination].append(record)
            self._answer(answered, None)

    def fail(self, error: Exception | None = None, sends: int | None = None) -> None:
        """Answer the oldest sends, or all there are now: failed; a TimeoutError is overload."""
        for _, answered in self._oldest(sends):
            self._answer(answered, error or TimeoutError("the fake broker does not answer"))

    def flush(self, timeout_s: float | None = 0.0) -> None:
        """Send what is kept in memory as far as it is admitted in time, and ack all sends."""
        self.shield.engine.flush(self.transport, timeout_s)
        self.ack()

    def close(self, timeout_s: float | None = 0.0) -> None:
        """Fail what is unanswered, and what chains send then, until nothing is left."""
        self.shield.engine.closing(self.transport, timeout_s)
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


class FakePort(FuturePort[LazyFuture["FakeRecord | None"]]):
    """Carries out the steps of a chain for one record of a `FakeClient`."""

    def __init__(self, client: FakeClient, record: FakeRecord) -> None:
        super().__init__(LazyFuture())
        self._fake = client
        self._record = record

    @property
    def client(self) -> Transport:
        """The client, as what is kept goes back through it."""
        return self._fake.transport

    def send(self, permit: Permit) -> LazyFuture[FakeRecord | None]:
        """Send where it was going."""

        def answered(error: Exception | None) -> None:
            if error is None:
                permit.delivered()
                self.future.set_result(self._record)
            else:
                permit.settle(_outcome_of(error))
                self.future.set_exception(error)

        if fate(self.future) != "buffered":
            self.pending("sent")
        hold_back(permit, self.may_wait)
        try:
            self._fake.begin(self._record, answered)
        except BaseException:
            permit.cancel()
            raise
        return self.future

    def divert(
        self, over: OverLimit, step: Divert, ended: Done
    ) -> LazyFuture[FakeRecord | None] | None:
        """Send to the step's destination; None where that cannot begin."""
        headers = {**self._record.headers, **diverted(over)}
        record = replace(self._record, destination=step.destination, headers=headers)
        self.pending("overflowed")
        try:
            self._fake.begin(record, ended)
        except ConnectionError:
            return None
        return self.future

    def may_wait(self) -> bool:
        """Anywhere but where sends are answered."""
        return self._fake.may_wait()

    def envelope(self) -> Envelope:
        """Return the record as it can be kept."""
        record = self._record
        own, marks = split_sent(tuple([(n, t.encode()) for n, t in record.headers.items()]))
        return Envelope(
            record.destination,
            record.body,
            "fake",
            record.key,
            own,
            producer=self._fake.producer,
            marks=marks,
        )


class FakeTransport(Transport):
    """The way back through a `FakeClient`, whose test answers these sends as well."""

    scheme = "fake"
    origin = "fake://"

    def __init__(self, client: FakeClient) -> None:
        self._client = client
        self.signals = client.signals

    def send(self, envelope: Envelope, done: Done) -> None:
        """Put the message before the fake broker."""
        headers = {name: (value or b"").decode() for name, value in envelope.all_headers()}
        body = envelope.body or b""
        try:
            self._client.begin(FakeRecord(envelope.destination, body, envelope.key, headers), done)
        except ConnectionError as error:
            done(error)

    def may_wait(self) -> bool:
        """Anywhere but where sends are answered."""
        return self._client.may_wait()

    def close(self, timeout_s: float) -> None:
        """Do nothing: the client is the test's."""


def _texts(headers: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    return {name: v if isinstance(v, str) else v.decode("utf-8", "replace") for name, v in headers}


def _outcome_of(error: Exception) -> Outcome:
    return Outcome.OVERLOADED if isinstance(error, TimeoutError) else Outcome.FAILED
