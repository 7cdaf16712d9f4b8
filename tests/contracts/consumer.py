"""The cases that every way of consuming passes, whatever its client and broker.

A test class inherits `ConsumerContract` and overrides the fixture `way` with its own `Way`: how
messages come to its broker, how they are asked for, and what is left. Time is real, and short.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

import shield
from shield import Shield
from tests.contracts.adapter import counts
from tests.eventually import GENEROUS_S

OLD_S = 1000
STALE = {"max_age": f"{OLD_S // 2}s"}
LATE = {"target": "100ms", "interval": "300ms", "longest": "200ms"}


class Consumer(ABC):
    """One consumer of one place, as its users have it."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        """All that it was handed, in order."""

    @abstractmethod
    def take(self, most: int, within_s: float) -> None:
        """Ask for up to so many more, for so long; who is pushed to cannot help getting more."""

    @abstractmethod
    def done(self) -> None:
        """Acknowledge, or commit, all that it was handed."""

    @abstractmethod
    def close(self) -> None:
        """Close it as its users do."""


class Way(ABC):
    """One way to consume from one broker."""

    keeps = True
    """Whether what is over the limit waits in the consumer, and not at its broker."""
    overtakes = True
    """Whether the newest may be handed over first, where what waits waits too long."""

    @abstractmethod
    def place(self) -> str:
        """Return a queue, or a topic with one partition, of this test's own."""

    @abstractmethod
    def nowhere(self) -> str:
        """Return an overflow destination that no send comes to."""

    @abstractmethod
    def overflow(self, place: str) -> str:
        """Return such a place as an overflow destination."""

    @abstractmethod
    def put(self, place: str, bodies: Iterable[bytes], age_s: float = 0.0) -> None:
        """Let the broker have messages, in order, that were published so long ago."""

    @abstractmethod
    def consumer(self, chosen: Shield, place: str) -> Consumer:
        """Return a consumer of a place, connected."""

    @abstractmethod
    def left(self, place: str) -> Sequence[bytes]:
        """Return what whoever consumes there next is given: no consumer is open."""


class Use:
    """One Shield, one place and one consumer of it."""

    def __init__(self, way: Way, chosen: Shield, place: str) -> None:
        self.way = way
        self.shield = chosen
        self.place = place
        self.consumer = way.consumer(chosen, place)

    @property
    def got(self) -> list[int]:
        return [int(body) for body in self.consumer.got]

    def run(self, until: int, within_s: float = GENEROUS_S) -> None:
        """Ask until so many were handed over in all, or the time is over."""
        self.until(lambda: len(self.got) >= until, until, within_s)

    def until(
        self, is_so: Callable[[], object], most: int = 1000, within_s: float = GENEROUS_S
    ) -> None:
        """Ask until something is so, for no more than that in all, or the time is over."""
        deadline = time.monotonic() + within_s
        while not is_so() and time.monotonic() < deadline:
            self.consumer.take(max(1, most - len(self.got)), 0.1)

    def left(self) -> list[int]:
        """Close it; return what its broker still has."""
        self.consumer.close()
        return [int(body) for body in self.way.left(self.place)]

    def ended(self) -> dict[str, object]:
        """Close it; return what the ledger counts."""
        self.consumer.close()
        return counts(self.shield)


class ThreeDigits:
    """A plugin that refuses what is longer than two bytes."""

    @shield.hookimpl
    def shield_before_consume(self, message: Any) -> None:
        if message.size > 2:
            raise shield.Reject("three digits")


class ConsumerContract:
    """The cases; a subclass overrides `way`."""

    @pytest.fixture
    def way(self) -> Way:
        raise NotImplementedError("return this way to consume")

    @pytest.fixture
    def use(self, way: Way) -> Iterator[Callable[..., Use]]:
        """Make consumers, of which none has anything in flight when it is closed."""
        made: list[Use] = []

        def use(*rules: dict[str, Any], place: str, plugins: Sequence[object] = ()) -> Use:
            given = [
                {"name": f"in-{n}", "match": "*", "direction": "consume", **rule}
                for n, rule in enumerate(rules)
            ]
            settings = {"shield": {"producer": "contract"}, "rules": given}
            made.append(Use(way, Shield(settings, plugins=plugins), place))
            return made[-1]

        yield use
        for one in made:
            assert "in_flight" not in one.ended()
            assert one.shield.plugin_errors == {}

    def test_a_quota_paces_what_is_handed_over(self, way, use):
        """In order, all of it, and never faster."""
        place = way.place()
        way.put(place, numbered(range(40)))
        one = use({"quota": {"rate": "40/s", "burst": 10}}, place=place)
        one.run(1)
        began_s = time.monotonic()
        one.run(40)
        assert time.monotonic() - began_s > 0.5
        one.consumer.done()
        assert one.got == list(range(40))
        assert one.left() == []
        assert one.ended() == {"offered": 40, "delivered": 40}

    def test_no_more_is_in_hand_than_the_bound(self, way, use):
        """The rest comes when that is acknowledged, or committed."""
        place = way.place()
        way.put(place, numbered(range(20)))
        one = use({"in_flight": {"messages": 5}}, place=place)
        for handed in (5, 10, 15):
            one.run(handed)
            one.run(20, within_s=0.3)
            assert len(one.got) == handed
            one.consumer.done()
        one.run(20)
        one.consumer.done()
        assert one.got == list(range(20))
        assert one.left() == []
        assert one.ended() == {"offered": 20, "delivered": 20}

    def test_what_is_too_old_is_elsewhere_and_then_done(self, way, use):
        """Each in one place; the broker has none of it any more."""
        place, late = way.place(), way.place()
        way.put(place, numbered(range(5)), age_s=OLD_S)
        way.put(place, numbered(range(5, 25)))
        way.put(place, numbered(range(25, 30)), age_s=OLD_S)
        overflow = f"overflow {way.overflow(late)}"
        one = use({**STALE, "over_limit": ["wait", overflow]}, place=place)
        one.until(lambda: len(one.got) == 20 and one.shield.ledger().overflowed == 10)
        one.consumer.done()
        assert one.got == list(range(5, 25))
        assert one.left() == []
        assert sorted(map(int, way.left(late))) == [*range(5), *range(25, 30)]
        assert one.ended() == {"offered": 30, "delivered": 20, "overflowed": 10}

    def test_what_cannot_go_elsewhere_stays_with_its_broker(self, way, use):
        """Whatever its user acknowledges or commits."""
        place = way.place()
        way.put(place, numbered(range(3)))
        way.put(place, numbered(range(3, 6)), age_s=OLD_S)
        way.put(place, numbered(range(6, 9)))
        one = use({**STALE, "over_limit": f"overflow {way.nowhere()}"}, place=place)
        one.run(9, within_s=1.5)
        one.consumer.done()
        left = one.left()
        assert {3, 4, 5} <= set(left)
        assert Counter(left + one.got) == Counter(range(9))
        ledger = one.ended()
        assert ledger["delivered"] == len(one.got)
        assert set(ledger) <= {"offered", "delivered", "failed"}

    def test_what_a_rule_drops_is_counted_and_done(self, way, use):
        """Its user never sees it, and nobody is given it again."""
        place = way.place()
        way.put(place, numbered(range(5)), age_s=OLD_S)
        way.put(place, numbered(range(5, 10)))
        one = use({**STALE, "over_limit": "drop"}, place=place)
        one.run(5)
        one.consumer.done()
        assert one.got == [5, 6, 7, 8, 9]
        assert one.left() == []
        assert one.ended() == {"offered": 10, "delivered": 5, "dropped": 5}

    def test_what_a_plugin_refuses_is_not_handed_over(self, way, use):
        """Counted as dropped, and the others come."""
        place = way.place()
        way.put(place, numbered([1, 100, 2, 101, 3]))
        one = use({"quota": "1000/s"}, place=place, plugins=[ThreeDigits()])
        one.run(3)
        one.consumer.done()
        assert one.got == [1, 2, 3]
        assert one.left() == []
        assert one.ended() == {"offered": 5, "delivered": 3, "dropped": 2}

    def test_what_is_held_back_at_the_end_is_given_back(self, way, use):
        """In order, and nothing else: what was handed over is done."""
        place = way.place()
        way.put(place, numbered(range(10)))
        one = use({"quota": {"rate": "1/h", "burst": 3}}, place=place)
        one.run(4, within_s=1.0)
        assert one.got == [0, 1, 2]
        one.consumer.done()
        assert one.left() == list(range(3, 10))
        ledger = one.ended()
        assert ledger["delivered"] == 3
        assert ledger["offered"] == 3 + ledger.get("failed", 0) <= 4

    def test_what_is_not_done_at_the_end_is_given_back(self, way, use):
        """Also what was handed over: nobody has said that it is done."""
        place = way.place()
        way.put(place, numbered(range(10)))
        one = use({"quota": {"rate": "1/h", "burst": 3}}, place=place)
        one.run(4, within_s=1.0)
        assert one.left() == list(range(10))
        ledger = one.ended()
        assert ledger["failed"] == ledger["offered"]
        assert 3 <= ledger["offered"] <= 4

    @pytest.mark.parametrize("pause_s", [0.0, 0.6], ids=["eager", "slow"])
    def test_what_waits_here_too_long_goes_elsewhere(self, way, use, pause_s):
        """However seldom its user asks; where it waits at the broker, that is none of ours."""
        place, late = way.place(), way.place()
        way.put(place, numbered(range(60)))
        pace = {"quota": {"rate": "20/s", "burst": 5}, "queue_delay": LATE}
        chain = ["wait", f"overflow {way.overflow(late)}"]
        one = use({**pace, "over_limit": chain}, place=place)

        pauses = [pause_s] * 3

        def all_ended() -> bool:
            time.sleep(pauses.pop() if pauses else 0.0)
            return len(one.got) + one.shield.ledger().overflowed >= 60

        one.until(all_ended)
        one.consumer.done()
        assert one.left() == []
        elsewhere = [int(body) for body in way.left(late)]
        assert Counter(one.got + elsewhere) == Counter(range(60))
        assert bool(elsewhere) is way.keeps
        assert way.overtakes or one.got == sorted(one.got)
        expected = {"offered": 60, "delivered": len(one.got), "overflowed": len(elsewhere)}
        assert one.ended() == {end: number for end, number in expected.items() if number}


def numbered(numbers: Iterable[int]) -> list[bytes]:
    """Return bodies with their numbers."""
    return [b"%d" % number for number in numbers]
