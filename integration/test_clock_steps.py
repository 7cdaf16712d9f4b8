"""The wall clock is stepped, as by NTP or by hand, while messages pass through both real brokers.

Rates, waits and backlogs go by a monotonic clock and do not notice. Ages and deadlines are told by
the wall clock of who wrote them, and go by that: what they decide changes, and nothing is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pika
import pytest
from pika import BasicProperties

import shield
from integration.brokers import create_topic
from integration.queues import Queues
from integration.reading import count, read
from integration.test_backlog import commit, status
from shield import Shield
from shield_kafka import KafkaConsumer, KafkaProducer
from shield_rabbitmq import BlockingConnection, Publisher
from tests.eventually import eventually

STEP_S = 3000.0
"""Below the hour by which Kafka lets a record's time be ahead of its own."""
STEPS = pytest.mark.parametrize("step_s", [STEP_S, -STEP_S], ids=["forward", "back"])
RATE, BURST = 200, 20


class Wall:
    """`time.time` for everything in this process, so far ahead of the real one."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self._real = time.time

    def __call__(self) -> float:
        return self._real() + self.ahead_s


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The wall clock, to be stepped."""
    wall = Wall()
    monkeypatch.setattr(time, "time", wall)
    return wall


@pytest.fixture
def queues(rabbitmq) -> Iterator[Queues]:
    with Queues(rabbitmq.address) as queues:
        yield queues


def send_paced(send: Callable[[int], Any], wall: Wall, step_s: float) -> None:
    """Send what takes two seconds by its quota, with a step at each third and back; check the pace.

    No wait is so short that it lets a burst through, and none is long.
    """
    messages = BURST + 2 * RATE
    times = [time.monotonic()]
    for number in range(messages):
        if number % (messages // 3) == messages // 6:
            wall.ahead_s = step_s - wall.ahead_s
        send(number)
        times.append(time.monotonic())
    assert times[-1] - times[0] >= (messages - BURST) / RATE - 0.01
    assert max(after - before for before, after in pairwise(times)) < 1.0
    for first in range(0, messages, 10):  # a burst, and what the rate gives in a half second
        within = [at for at in times[first:] if at < times[first] + 0.5]
        assert len(within) <= BURST + RATE * 0.5 + 2


def paced(match: str) -> Shield:
    quota = {"rate": f"{RATE}/s", "burst": BURST}
    rule = {"match": match, "quota": quota, "shed": "deadline", "over_limit": ["wait 2s", "drop"]}
    return Shield({"rules": [rule]})


# --- producing ------------------------------------------------------------------------------------


@pytest.mark.alone
@STEPS
def test_a_kafka_producers_quota_and_its_waits_do_not_notice(kafka, wall, step_s):
    """Each waits its turn, all arrive in order, none is dropped."""
    topic, own = create_topic(kafka.address, 1), paced("*")
    with KafkaProducer(bootstrap_servers=kafka.address, shield=own) as producer:
        producer.partitions_for(topic)
        send_paced(lambda number: producer.send(topic, b"%d" % number), wall, step_s)
        producer.flush(20)
    ledger = own.ledger()
    assert ledger.balanced
    assert ledger.offered == ledger.delivered == BURST + 2 * RATE
    found = [int(record.value) for record in read(kafka.address, topic)]
    assert found == list(range(BURST + 2 * RATE))


@pytest.mark.alone
@STEPS
def test_a_rabbitmq_publishers_quota_and_its_deadlines_do_not_notice(
    rabbitmq, queues, wall, step_s
):
    """A message's `expiration` is a time from now on: none of them is late."""
    queue, own = queues.queue(), paced("*")
    soon = BasicProperties(expiration="60000")
    with Publisher(rabbitmq.address, shield=own) as publisher:
        send_paced(lambda number: publisher.publish("", queue, b"%d" % number, soon), wall, step_s)
        publisher.flush(20)
    ledger = own.ledger()
    assert ledger.balanced
    assert ledger.offered == ledger.delivered == BURST + 2 * RATE
    assert queues.bodies(queue) == [b"%d" % number for number in range(BURST + 2 * RATE)]


def test_a_deadline_in_a_header_goes_by_the_wall_clock_once(kafka, wall):
    """When it is decided on. A step before that makes it late, or leaves it more time."""
    topic = create_topic(kafka.address, 1)
    rule = {"match": "*", "shed": "deadline", "in_flight": {"messages": 1000}, "over_limit": "drop"}
    with KafkaProducer(bootstrap_servers=kafka.address, shield={"rules": [rule]}) as producer:

        def fate(deadline_s: float) -> str:
            header = [("shield-deadline", b"%d" % (deadline_s * 1000))]
            return shield.fate(producer.send(topic, b"v", headers=header))

        made_before_s = time.time() + 60
        assert fate(made_before_s) == "sent"
        wall.ahead_s = STEP_S
        assert fate(made_before_s) == "dropped"
        assert fate(time.time() + 60) == "sent"
        wall.ahead_s = -STEP_S
        assert fate(made_before_s) == "sent"
        assert fate(time.time() - 1) == "dropped"
        producer.flush(20)
        ledger = producer.shield.ledger()
    assert (ledger.offered, ledger.delivered, ledger.dropped) == (5, 3, 2)
    assert count(kafka.address, topic) == 3


@STEPS
def test_a_backlog_is_as_old_as_it_is(kafka, wall, step_s):
    """Its age is a monotonic one; producers are limited at the limit, and released below it."""
    topic = create_topic(kafka.address, 1)
    commit(kafka.address, topic, "billing", {0: 0})
    backlog = {"limit": 200, "group": "billing", "every": "200ms"}
    rule = {"match": topic, "backlog": backlog, "over_limit": "drop"}
    with KafkaProducer(bootstrap_servers=kafka.address, shield={"rules": [rule]}) as producer:
        own = producer.shield

        def sent() -> bool:
            time.sleep(0.002)
            age_s = status(own)["age_s"]
            assert age_s is None or 0.0 <= age_s < 5.0
            return shield.fate(producer.send(topic, b"x")) == "sent"

        assert sent()
        eventually(lambda: status(own)["age_s"] is not None)
        wall.ahead_s = step_s
        eventually(lambda: not sent())
        producer.flush(20)
        eventually(lambda: status(own)["engaged"])
        assert 200 <= own.ledger().delivered <= 260
        wall.ahead_s = -step_s
        eventually(lambda: not sent())
        commit(kafka.address, topic, "billing", {0: own.ledger().delivered})
        eventually(lambda: status(own)["waiting"] < 100)
        wall.ahead_s = 0.0
        assert sent()
        producer.flush(20)
        ledger = own.ledger()
    assert ledger.offered == ledger.delivered + ledger.dropped
    assert count(kafka.address, topic) == ledger.delivered


# --- consuming ------------------------------------------------------------------------------------


class Stepper(threading.Thread):
    """Steps the clock there and back again, at times of its own, until it is stopped."""

    def __init__(self, wall: Wall, step_s: float) -> None:
        super().__init__()
        self._wall = wall
        self._step_s = step_s
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.3):
            self._wall.ahead_s = self._step_s - self._wall.ahead_s

    def __enter__(self) -> Stepper:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self.join()


def receiving(overflow: str) -> dict[str, Any]:
    """Hold back by rate; set aside what is older than ten minutes."""
    return {
        "match": "*",
        "direction": "consume",
        "quota": {"rate": "300/s", "burst": BURST},
        "max_age": "10m",
        "over_limit": ["wait", f"overflow {overflow}"],
    }


@STEPS
def test_a_kafka_consumer_hands_over_or_sets_aside_each_record_once(kafka, wall, step_s):
    """All are young. A clock that is ahead takes them for old: they are at the overflow topic.

    One that is back takes them for younger than they are. The quota does not notice.
    """
    topic, overflow = create_topic(kafka.address, 2), create_topic(kafka.address, 1)
    with KafkaProducer(bootstrap_servers=kafka.address, shield={}) as producer:
        for number in range(600):
            producer.send(topic, b"%d" % number, partition=number % 2)
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=kafka.address,
        shield={"rules": [receiving(overflow)]},
        group_id=topic,
        auto_offset_reset="earliest",
    )
    handed: list[int] = []
    own = consumer.shield
    began = time.monotonic()

    def all_are_known() -> bool:
        for records in consumer.poll(500).values():
            handed.extend(int(record.value) for record in records)
        assert len(handed) <= BURST + 300 * (time.monotonic() - began) + 1
        return len(handed) + own.ledger().overflowed >= 600

    eventually(lambda: all_are_known() or handed)  # its group has metadata, which age by this clock
    with Stepper(wall, step_s):
        eventually(all_are_known)
    consumer.commit()
    consumer.close()
    ledger = own.ledger()
    assert ledger.balanced
    assert (ledger.offered, ledger.in_flight) == (ledger.delivered + ledger.overflowed, 0)
    aside = [int(record.value) for record in read(kafka.address, overflow)]
    assert sorted(handed + aside) == list(range(600))
    assert len(aside) == ledger.overflowed
    assert bool(aside) == (step_s > 0)
    assert handed


@STEPS
def test_a_rabbitmq_consumer_hands_over_or_sets_aside_each_message_once(
    rabbitmq, queues, wall, step_s
):
    """As Kafka's; also by `expiration`, counted from when it says that it was published."""
    queue, late = queues.queue(), queues.queue()
    sent_s = int(time.time())
    with Publisher(rabbitmq.address, shield={}) as publisher:
        for number in range(600):
            expiration = "600000" if number % 2 else None
            properties = BasicProperties(timestamp=sent_s, expiration=expiration)
            publisher.publish("", queue, b"%d" % number, properties)
    handed: list[int] = []
    rule = receiving(f"/{late}")
    by_deadline = {**rule, "shed": "deadline"}
    del by_deadline["max_age"], by_deadline["quota"]
    own = Shield({"rules": [{"name": "a", **rule}, {"name": "b", **by_deadline}]})
    parameters = pika.URLParameters(rabbitmq.address)
    connection = BlockingConnection(parameters, shield=own)
    channel = connection.channel()

    def arrived(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        handed.append(int(body))
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(queue, arrived)
    with Stepper(wall, step_s):

        def all_are_known() -> bool:
            connection.process_data_events(0.1)
            return len(handed) + own.ledger().overflowed >= 600

        eventually(all_are_known)
    connection.close()
    ledger = own.ledger()
    assert ledger.balanced
    assert (ledger.offered, ledger.in_flight) == (ledger.delivered + ledger.overflowed, 0)
    aside = [int(body) for body in queues.bodies(late)]
    assert sorted(handed + aside) == list(range(600))
    assert len(aside) == ledger.overflowed
    assert bool(aside) == (step_s > 0)
    assert handed
    assert queues.depth(queue) == 0
