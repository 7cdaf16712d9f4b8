"""What every transport and its source promise, as a test class to inherit."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace

from shield.envelope import Envelope
from shield.headers import DESTINATION, MESSAGE_ID, ROUTING_KEY
from shield.testing.contract import PATIENCE_S, expect, registry_of
from shield.testing.source_contract import SourceContract, take_from
from shield.testing.watching import expect_nothing_left, in_threads
from shield.transport import Transport
from shield.url import URL

A_MOMENT_S = 1.0
"""Longer than `send` may block: it is called while a message's caller waits."""

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


class RecordedAnswers:
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
        expect(came, f"{number} sends to end", f"{len(self.errors)} of them")
        return self.errors


class TransportContract(SourceContract):
    """What every transport and its source promise. Inherit it in a test class.

    Example:
        >>> class TestS3(TransportContract):
        ...     plugins = (s3,)
        ...
        ...     def place(self):
        ...         return f"s3://localhost:9000/{uuid4()}"
    """

    def place(self) -> str:
        """Return the URL of a fresh, empty place, in which messages keep their order."""
        raise NotImplementedError

    def filled(self, number: int) -> str:
        """Return a fresh place to which so many were sent."""
        place = self.place()
        transport, answers = self._transport(place), RecordedAnswers()
        for one in range(number):
            transport.send(_numbered(one), answers)
        ends = answers.wait(number)
        transport.close(PATIENCE_S)
        expect(ends == [None] * number, f"{number} sends without an error", ends)
        return place

    # --- sending and reading --------------------------------------------------------------------

    def test_what_is_sent_comes_back_as_it_was(self) -> None:
        """Body, key, headers, timestamp and properties, whatever client they came from."""
        place = self.place()
        for error in self._send(place, *map(_diverted, ENVELOPES)):
            expect(error is None, "no error", error)
        with self._open(place) as source:
            back = [taken.envelope.restored() for taken in take_from(source, len(ENVELOPES))]
        for sent, came in zip(ENVELOPES, back, strict=True):
            ours = {"marks": (), "producer": "", "timestamp_ms": sent.timestamp_ms}
            assert replace(came, **ours) == sent  # type: ignore[arg-type]
            if sent.kind == "kafka" and sent.timestamp_ms is not None:
                assert came.timestamp_ms == sent.timestamp_ms
            assert came.id == "an id"

    def test_every_send_of_every_thread_ends_once(self) -> None:
        """Eight threads at once; each of them finds its own messages in order."""
        place = self.place()
        transport, answers = self._transport(place), RecordedAnswers()

        def send(thread: int) -> None:
            for number in range(50):
                transport.send(_numbered(number, b"%d" % thread), answers)

        in_threads(8, send)
        assert answers.wait(400) == [None] * 400
        transport.close(PATIENCE_S)
        expect(len(answers.errors) == 400, "one answer to each of 400", len(answers.errors))
        with self._open(place) as source:
            came = [taken.envelope.restored() for taken in take_from(source, 400)]
        for key in (b"%d" % number for number in range(8)):
            own = [envelope.body for envelope in came if envelope.key == key]
            assert own == [b"%d" % number for number in range(50)]

    def test_closing_waits_for_all_sends(self) -> None:
        """After it each has ended, and one that comes later fails without raising."""
        transport, answers = self._transport(self.place()), RecordedAnswers()
        for number in range(100):
            transport.send(_numbered(number), answers)
        transport.close(PATIENCE_S)
        assert answers.errors == [None] * 100
        late = RecordedAnswers()
        transport.send(_numbered(1), late)
        (answer,) = late.wait(1)
        expect(isinstance(answer, Exception), "an error", answer)
        transport.close(0.0)

    def test_closing_without_time_ends_all_sends(self) -> None:
        """What has no answer by then fails; none is answered again later."""
        transport, answers = self._transport(self.place()), RecordedAnswers()
        for number in range(100):
            transport.send(_numbered(number), answers)
        began = time.monotonic()
        transport.close(0.0)
        took_s = time.monotonic() - began
        expect(took_s < PATIENCE_S / 2, "an end at once", f"one after {took_s:.1f} s")
        answers.wait(100)
        time.sleep(A_MOMENT_S / 2)  # one that comes twice has no other sign
        expect(len(answers.errors) == 100, "one answer to each of 100", len(answers.errors))

    def test_sending_does_not_block(self) -> None:
        """The message's caller waits for its answer, or does not; that is no transport's matter."""
        transport, answers = self._transport(self.place()), RecordedAnswers()
        longest_s = 0.0
        for number in range(100):
            began = time.monotonic()
            transport.send(_numbered(number), answers)
            longest_s = max(longest_s, time.monotonic() - began)
        transport.close(PATIENCE_S)
        expect(longest_s < A_MOMENT_S, f"less than {A_MOMENT_S} s", f"{longest_s:.2f} s")

    def test_an_answer_that_raises_stops_no_other(self) -> None:
        """Nobody's error ends the thread that hands out the answers."""
        transport, answers = self._transport(self.place()), RecordedAnswers()

        def fails(error: Exception | None) -> None:
            answers(error)
            raise RuntimeError("who hears of this answer fails")

        for number in range(10):
            with suppress(RuntimeError):  # where it is answered before `send` returns
                transport.send(_numbered(number), fails)
            transport.send(_numbered(number), answers)
        answers.wait(20)
        transport.close(PATIENCE_S)
        expect(len(answers.errors) == 20, "one answer to each of 20", len(answers.errors))

    def test_a_transport_that_is_closed_leaves_nothing_open(self) -> None:
        """Neither a thread nor a file, nor a connection."""
        place = self.place()
        expect_nothing_left(lambda: self._send(place, _numbered(1)), "transports that are closed")

    def test_a_transport_that_was_never_used_closes_at_once(self) -> None:
        """It has not connected."""
        began = time.monotonic()
        self._transport(self.place()).close(PATIENCE_S)
        took_s = time.monotonic() - began
        expect(took_s < A_MOMENT_S, f"less than {A_MOMENT_S} s", f"{took_s:.1f} s")

    def test_its_url_is_shown_without_secrets(self) -> None:
        """Neither its origin nor its repr has user or password."""
        scheme, _, rest = self.place().partition("://")
        url = URL.parse(f"{scheme}://{rest}")
        if url.hosts:
            url = replace(url, username="bob", password="s3cr3t-canary")
        assert "canary" not in self._shown(url)

    # --- short ways -----------------------------------------------------------------------------

    def _to(self, url: URL) -> Transport:
        return registry_of(self.plugins).transport(url.scheme).to(url)

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

    def _send(self, place: str, *envelopes: Envelope) -> list[Exception | None]:
        """Send one after another; return how each ended."""
        transport = self._transport(place)
        ends = []
        for envelope in envelopes:
            answers = RecordedAnswers()
            transport.send(envelope, answers)
            ends += answers.wait(1)
        transport.close(PATIENCE_S)
        return ends


def _numbered(number: int, key: bytes | None = None) -> Envelope:
    return _diverted(Envelope("orders", b"%d" % number, "kafka", key))


def _diverted(envelope: Envelope) -> Envelope:
    """Return it with the marks of one that was set aside."""
    marks = {DESTINATION: envelope.destination, MESSAGE_ID: "an id"}
    if envelope.routing_key is not None:
        marks[ROUTING_KEY] = envelope.routing_key
    return envelope.diverted(marks)
