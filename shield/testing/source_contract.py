"""What every source promises, as a test class to inherit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from shield.plugin_results import left_in, taken_in
from shield.testing.contract import (
    PATIENCE_S,
    eventually,
    expect,
    expect_readable,
    registry_of,
)
from shield.testing.watching import expect_no_growth, expect_nothing_left, in_threads
from shield.transport import Source, Taken
from shield.url import URL

MANY = 200
"""How many messages show what grows."""


class SourceContract:
    """What every source promises. Inherit it in a test class that says what to test.

    `TransportContract` has it as well: this one alone is for what cannot be sent to.

    Example:
        >>> class TestMailbox(SourceContract):
        ...     plugins = (mailbox,)
        ...
        ...     def filled(self, number):
        ...         return mailbox_with([b"%d" % n for n in range(number)])
    """

    plugins: ClassVar[Sequence[object]] = ()
    """Plugin modules or objects to register; none where an entry point names the transport's."""

    def filled(self, number: int) -> str:
        """Return the URL of a fresh place with messages in order: their bodies 0, 1, 2, ..."""
        raise NotImplementedError

    def test_what_is_forgotten_does_not_come_again(self) -> None:
        """And what is not comes again when the place is opened anew: nothing is lost between."""
        place = self.filled(10)
        with self._open(place) as source:
            for taken in take_from(source, 5):
                source.forget(taken)
        with self._open(place) as source:
            assert _bodies(take_from(source, 5)) == [b"5", b"6", b"7", b"8", b"9"]

    def test_messages_are_forgotten_in_any_order(self) -> None:
        """A hole in the middle comes again, maybe with what stands behind it, never less."""
        place = self.filled(6)
        with self._open(place) as source:
            taken = take_from(source, 6)
            for number in (4, 0, 5, 1, 3):
                source.forget(taken[number])
        with self._open(place) as source:
            again = _bodies(take_from(source, 1))
            assert again[0] == b"2"

    def test_what_failed_comes_again_before_those_behind_it(self) -> None:
        """In the order in which they stood."""
        place = self.filled(6)
        with self._open(place) as source:
            taken = take_from(source, 3)
            source.failed(taken[2])
            source.failed(taken[1])
            source.forget(taken[0])
            again = take_from(source, 5)
            assert _bodies(again) == [b"1", b"2", b"3", b"4", b"5"]
            for one in again:
                source.forget(one)
        with self._open(place) as source:
            expect_nothing(source)

    def test_it_tells_how_many_are_left(self) -> None:
        """Those that are not taken; or None where it cannot tell."""
        place = self.filled(6)
        with self._open(place) as source:
            taken = take_from(source, 2)
            self._expect_left(source, 4)
            for one in (*taken, *take_from(source, 4)):
                source.forget(one)
            self._expect_left(source, 0)

    def test_what_it_says_is_what_it_may_say(self) -> None:
        """No more than was asked for, and a number that is not below zero, or None."""
        with self._open(self.filled(6)) as source:
            for most in (1, 2, 100):
                expect_readable(lambda most=most: taken_in(source.take(most, 0.5), most))  # type: ignore[misc]
                expect_readable(lambda: left_in(source.left()))

    def test_an_empty_place_gives_nothing_in_time(self) -> None:
        """It neither raises nor blocks for much longer than it was told."""
        with self._open(self.filled(1)) as source:
            source.forget(*take_from(source, 1))
            began = time.monotonic()
            came = source.take(10, 0.5)
            took_s = time.monotonic() - began
        expect(not came, "nothing", came)
        expect(took_s < PATIENCE_S / 2, "an answer within 0.5 s, or little more", f"{took_s:.1f} s")

    def test_any_thread_may_forget(self) -> None:
        """Answers to sends come on other threads than the one that takes."""
        place = self.filled(40)
        with self._open(place) as source:
            taken = take_from(source, 40)
            in_threads(4, lambda n: [source.forget(one) for one in taken[n::4]])
        with self._open(place) as source:
            expect_nothing(source)

    def test_it_keeps_nothing_of_what_is_forgotten(self) -> None:
        """However many messages went through it."""

        def read() -> None:
            with self._open(self.filled(MANY)) as source:
                for taken in take_from(source, MANY):
                    source.forget(taken)

        expect_no_growth(read, 200 * MANY, f"{MANY} messages that are forgotten")

    def test_what_is_closed_leaves_nothing_open(self) -> None:
        """Neither a thread nor a file, nor a connection."""

        def read() -> None:
            with self._open(self.filled(2)) as source:
                take_from(source, 2)

        expect_nothing_left(read, "sources that are closed")

    def _expect_left(self, source: Source, number: int) -> None:
        __tracebackhide__ = True
        told = eventually(lambda: source.left() in (number, None))
        expect(told, f"{number} left, or None", source.left())

    @contextmanager
    def _open(self, place: str) -> Iterator[Source]:
        url = URL.parse(place)
        source = registry_of(self.plugins).transport(url.scheme).source(url)
        try:
            yield source
        finally:
            source.close()


def take_from(source: Source, number: int) -> list[Taken]:
    """Take so many; AssertionError where they do not come."""
    __tracebackhide__ = True
    taken: list[Taken] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(taken) < number and time.monotonic() < deadline:
        taken += source.take(number - len(taken), 0.2)
    expect(len(taken) == number, f"{number} messages", f"{len(taken)} of them")
    return taken


def expect_nothing(source: Source) -> None:
    """AssertionError where something comes."""
    __tracebackhide__ = True
    came = source.take(1, 0.5)
    expect(not came, "nothing, for all is forgotten", came)


def _bodies(taken: Sequence[Taken]) -> list[bytes | None]:
    return [one.envelope.body for one in taken]
