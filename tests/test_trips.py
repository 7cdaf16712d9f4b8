"""How far one goes to follow a message: the functions and files on its way, held to a bound.

Counted are the distinct Python functions of shield/ and adapters/ that the calling thread enters,
and the files in which these stand, with kafka-python's clients on the embedded Kafka; as often as
one of them is called it counts once. What the client's own threads do with the broker's answer is
not in it. Topics are known, and policy sets compiled, before. `pytest -s tests/test_trips.py`
prints each trip beside what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from shield import Shield, fate
from shield_kafka import KafkaConsumer, KafkaProducer
from shield_kafka.demo.embedded import API_VERSION, EmbeddedKafka
from tests.trace import Trip, traced


@dataclass(frozen=True)
class Length:
    """Distinct functions, and the files that they are in."""

    frames: int
    modules: int

    def __str__(self) -> str:
        return f"{self.frames} frames in {self.modules} modules"


@dataclass(frozen=True)
class Figures:
    """What a trip was before the packages, and what it may be at the most now."""

    issue: Length
    """As the issue that asked for shorter ones gives it; how it counted is not said there."""
    before: Length
    """By these tests' own count, run on the commit before the move (a22e43e)."""
    bound: Length


ADMITTED = Figures(Length(12, 8), Length(11, 7), bound=Length(12, 8))
OVERFLOWED = Figures(Length(71, 17), Length(120, 31), bound=Length(124, 34))
POLLED = Figures(Length(32, 13), Length(31, 13), bound=Length(32, 13))


def hold(name: str, trip: Trip, figures: Figures) -> None:
    """Print a trip beside what it was, and hold it to its bound."""
    now, bound = Length(trip.frames, trip.modules), figures.bound
    calls = f"{len(trip.calls)} calls"
    print(f"\n{name}: {now}, {calls}; before, {figures.before}; in the issue, {figures.issue}")
    assert trip.calls, "nothing was traced"
    way = "\n".join(dict.fromkeys(trip.calls))
    assert now.frames <= bound.frames, f"{name}: {now}, allowed are {bound}:\n{way}"
    assert now.modules <= bound.modules, f"{name}: {now}, allowed are {bound}:\n{way}"


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    cluster = EmbeddedKafka()
    yield cluster.bootstrap
    del cluster


def producer(bootstrap: str, *rules: dict[str, object], **configs: object) -> KafkaProducer:
    return KafkaProducer(
        bootstrap_servers=bootstrap,
        api_version=API_VERSION,
        shield=Shield({"rules": [*rules]}),
        **configs,
    )


def test_a_send_that_is_admitted(bootstrap):
    """Asked, charged, and handed to kafka-python, which lingers: no answer comes meanwhile."""
    rule = {"match": "orders", "quota": {"rate": "1000/h", "burst": 10}}
    with producer(bootstrap, rule, linger_ms=500) as client:
        for _ in range(2):
            client.send("orders", b"before").get(timeout=10)
        with traced() as trip:
            future = client.send("orders", b"an order")
        future.get(timeout=10)
    assert fate(future) == "sent"
    hold("admitted", trip, ADMITTED)


def test_a_send_that_is_refused_waits_in_vain_and_goes_to_the_overflow(bootstrap):
    """The first message is in flight for as long as kafka-python lingers over its batch."""
    rule = {
        "match": "narrow",
        "in_flight": {"messages": 1},
        "over_limit": ["wait 50ms", "overflow wide"],
    }
    with producer(bootstrap, rule, linger_ms=60_000) as client:
        for _ in range(2):
            client.send("narrow", b"before")
        client.flush(timeout=10)
        first = client.send("narrow", b"the one in flight")
        with traced() as trip:
            future = client.send("narrow", b"one too many")
        assert not first.is_done
        client.flush(timeout=10)
    assert (fate(first), fate(future)) == ("sent", "overflowed")
    hold("refused, waited, overflowed", trip, OVERFLOWED)


def test_a_poll_that_hands_records_over(bootstrap):
    """One that finds what was fetched before, within its quota."""
    rule = {"match": "bills", "direction": "consume", "quota": "1000/s", "over_limit": "wait"}
    consumer = KafkaConsumer(
        "bills",
        bootstrap_servers=bootstrap,
        api_version=API_VERSION,
        group_id="trips",
        auto_offset_reset="earliest",
        shield=Shield({"rules": [rule]}),
    )
    with producer(bootstrap) as client:
        client.send("bills", b"before").get(timeout=10)
        while not consumer.poll(timeout_ms=500):
            pass
        client.send("bills", b"a bill").get(timeout=10)
    while True:
        with traced() as trip:
            records = consumer.poll(timeout_ms=500)
        if records:
            break
    consumer.close()
    hold("polled", trip, POLLED)
