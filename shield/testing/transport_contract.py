"""What every transport and its source promise, as a test class to inherit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

from shield.envelope import Envelope
from shield.headers import DESTINATION, MESSAGE_ID, ROUTING_KEY
from shield.registry import Registry
from shield.transport import Source, Taken, Transport
from shield.url import URL

PATIENCE_S = 20.0
"""How long a broker may take for what a test waits for."""

ENVELOPES: tuple[Envelope, ...] = (
    Envelope("orders", b"body", "kafka"),
    Envelope("orders", b"", "kafka", b"", (("h", b""),), timestamp_ms=1),
    Envelope("orders", None, "kafka", b"key", timestamp_ms=1_700_000_000_123),
    Envelope("orders", bytes(range(256)), "kafka", b"\xff\x00\n", (("bin", b"\xff\n\x00"),)),
    Envelope("orders", b"twice", "kafka", headers=(("a", b"1"), ("b", b"2"), ("a", b"3"))),
    Envelope("orders", b"x" * 200_000, "kafka", headers=(("n" * 300, b"long"),)),
    Envelope("exchange/key", b"body", "amqp", routing_key="key", native=b"\x00\x00"),
    Envelope("a/b", b"\n{}\n", "amqp", routing_key="a/b", native=b"\x00\x00"),
)
"""Messages as clients really make them, from the plain to the odd."""


class Answers:
    """Hears how sends end: each once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.errors: list[Exception | None] = []

    def __call__(self, error: Exception | None) -> None:
        """Take one answer."""
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()

    def wait(self, number: int) -> list[Exception | None]:
        """Return the ends of so many sends; AssertionError where they do not come."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.errors) >= number, PATIENCE_S)
        assert came, f"{len(self.errors)} of {number} sends have ended"
        return self.errors


class TransportContract:
    """What every transport promises. Inherit it in a test class that says what to test.

    Example:
        >>> class TestS3(TransportContract):
        ...     plugins = (s3,)
        ...
        ...     def place(self):
        ...         return f"s3://localhost:9000/{uuid4()}"
    """

    plugins: ClassVar[Sequence[object]] = ()
    """Plugin modules or objects to register; none where an entry point names the transport's."""

    def place(self) -> str:
        """Return the URL of a fresh, empty place, in which messages keep their order."""
        raise NotImplementedError

    # --- sending and reading --------------------------------------------------------------------

    def test_what_is_sent_comes_back_as_it_was(self) -> None:
        """Body, key, headers, timestamp and properties, whatever client they came from."""
        place = self.place()
        for error in self._send(place, *map(_diverted, ENVELOPES)):
            assert error is None, error
        with self._open(place) as source:
            back = [taken.envelope.restored() for taken in _take(source, len(ENVELOPES))]
        for sent, came in zip(ENVELOPES, back, strict=True):
            ours = {"marks": (), "producer": "", "timestamp_ms": sent.timestamp_ms}
            assert replace(came, **ours) == sent  # type: ignore[arg-type]
            if sent.kind == "kafka" and sent.timestamp_ms is not None:
                assert came.timestamp_ms == sent.timestamp_ms
            assert came.id == "an id"

    def test_every_send_of_every_thread_ends_once(self) -> None:
        """Eight threads at once; each of them finds its own messages in order."""
        place = self.place()
        transport, answers = self._transport(place), Answers()

        def send(thread: int) -> None:
            for number in range(50):
                transport.send(_numbered(number, b"%d" % thread), answers)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert answers.wait(400) == [None] * 400
        transport.close(PATIENCE_S)
        assert len(answers.errors) == 400
        with self._open(place) as source:
            came = [taken.envelope.restored() for taken in _take(source, 400)]
        for key in (b"%d" % number for number in range(8)):
            own = [envelope.body for envelope in came if envelope.key == key]
            assert own == [b"%d" % number for number in range(50)]

    def test_closing_waits_for_all_sends(self) -> None:
        """After it each has ended, and one that comes later fails without raising."""
        transport, answers = self._transport(self.place()), Answers()
        for number in range(100):
            transport.send(_numbered(number), answers)
        transport.close(PATIENCE_S)
        assert answers.errors == [None] * 100
        late = Answers()
        transport.send(_numbered(1), late)
        assert isinstance(late.wait(1)[0], Exception)
        transport.close(0.0)

    def test_a_transport_that_was_never_used_closes_at_once(self) -> None:
        """It has not connected."""
        began = time.monotonic()
        self._transport(self.place()).close(PATIENCE_S)
        assert time.monotonic() - began < 1

    def test_its_url_is_shown_without_secrets(self) -> None:
        """Neither its origin nor its repr has user or password."""
        scheme, _, rest = self.place().partition("://")
        url = URL.parse(f"{scheme}://{rest}")
        if url.hosts:
            url = replace(url, username="bob", password="s3cr3t-canary")
        assert "canary" not in self._shown(url)

    # --- the way back ---------------------------------------------------------------------------

    def test_what_is_forgotten_does_not_come_again(self) -> None:
        """And what is not comes again when the place is opened anew: nothing is lost between."""
        place = self._filled(10)
        with self._open(place) as source:
            for taken in _take(source, 5):
                source.forget(taken)
        with self._open(place) as source:
            assert _bodies(_take(source, 5)) == [b"5", b"6", b"7", b"8", b"9"]

    def test_messages_are_forgotten_in_any_order(self) -> None:
        """A hole in the middle comes again, maybe with what stands behind it, never less."""
        place = self._filled(6)
        with self._open(place) as source:
            taken = _take(source, 6)
            for number in (4, 0, 5, 1, 3):
                source.forget(taken[number])
        with self._open(place) as source:
            again = _bodies(_take(source, 1))
            assert again[0] == b"2"

    def test_what_failed_comes_again_before_those_behind_it(self) -> None:
        """In the order in which they stood."""
        place = self._filled(6)
        with self._open(place) as source:
            taken = _take(source, 3)
            source.failed(taken[2])
            source.failed(taken[1])
            source.forget(taken[0])
            again = _take(source, 5)
            assert _bodies(again) == [b"1", b"2", b"3", b"4", b"5"]
            for one in again:
                source.forget(one)
        with self._open(place) as source:
            assert source.take(1, 0.5) == []

    def test_it_tells_how_many_are_left(self) -> None:
        """Those that are not taken; or None where it cannot tell."""
        place = self._filled(6)
        with self._open(place) as source:
            taken = _take(source, 2)
            assert _until(lambda: source.left() in (4, None))
            for one in (*taken, *_take(source, 4)):
                source.forget(one)
            assert _until(lambda: source.left() in (0, None))

    # --- short ways -----------------------------------------------------------------------------

    def _to(self, url: URL) -> Transport:
        return Registry(self.plugins).transport(url.scheme).to(url)

    def _shown(self, url: URL) -> str:
        """Return what is seen of a transport, or of its refusal."""
        try:
            transport = self._to(url)
        except ValueError as refused:
            return str(refused)
        transport.close(0.0)
        return f"{transport!r} {transport.origin} {vars(transport)}"

    def _transport(self, place: str) -> Transport:
        return self._to(URL.parse(place))

    @contextmanager
    def _open(self, place: str) -> Iterator[Source]:
        url = URL.parse(place)
        source = Registry(self.plugins).transport(url.scheme).source(url)
        try:
            yield source
        finally:
            source.close()

    def _send(self, place: str, *envelopes: Envelope) -> list[Exception | None]:
        """Send one after another; return how each ended."""
        transport = self._transport(place)
        ends = []
        for envelope in envelopes:
            answers = Answers()
            transport.send(envelope, answers)
            ends += answers.wait(1)
        transport.close(PATIENCE_S)
        return ends

    def _filled(self, number: int) -> str:
        place = self.place()
        assert self._send(place, *map(_numbered, range(number))) == [None] * number
        return place


def _numbered(number: int, key: bytes | None = None) -> Envelope:
    return _diverted(Envelope("orders", b"%d" % number, "kafka", key))


def _diverted(envelope: Envelope) -> Envelope:
    """Return it with the marks of one that was set aside."""
    marks = {DESTINATION: envelope.destination, MESSAGE_ID: "an id"}
    if envelope.routing_key is not None:
        marks[ROUTING_KEY] = envelope.routing_key
    return envelope.diverted(marks)


def _take(source: Source, number: int) -> list[Taken]:
    """Take so many; AssertionError where they do not come."""
    taken: list[Taken] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(taken) < number and time.monotonic() < deadline:
        taken += source.take(number - len(taken), 0.2)
    assert len(taken) == number, f"{len(taken)} of {number} messages came"
    return taken


def _bodies(taken: Sequence[Taken]) -> list[bytes | None]:
    return [one.envelope.body for one in taken]


def _until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()
