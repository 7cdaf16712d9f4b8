"""What a real Kafka tells its producer, and the policies that act on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import shield
from integration.brokers import Broker, create_topic
from integration.reading import count
from shield_kafka import KafkaProducer
from tests.eventually import eventually

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def own_kafka(private_kafka) -> Broker:
    """A Kafka to be frozen; every test leaves it running."""
    return private_kafka()


@pytest.fixture
def freeze(own_kafka: Broker) -> Iterator[Callable[[], Callable[[], None]]]:
    """Freeze the broker, and let it go on with what freezing returns."""

    def freeze() -> Callable[[], None]:
        own_kafka.pause()
        return own_kafka.resume

    yield freeze
    own_kafka.resume()


@pytest.fixture
def make(own_kafka: Broker) -> Iterator[Callable[..., KafkaProducer]]:
    """Make producers that are closed at the end; then all is accounted for and nothing waits."""
    made: list[KafkaProducer] = []

    def make(*chain: str, **policies: Any) -> KafkaProducer:
        rule = {"match": "*", **policies, "over_limit": [*chain] or ["raise"]}
        producer = KafkaProducer(bootstrap_servers=own_kafka.address, shield={"rules": [rule]})
        made.append(producer)
        return producer

    yield make
    for producer in made:
        producer.close(timeout=30)
        ledger = producer.shield.ledger()
        assert ledger.balanced
        assert ledger.in_flight == 0


def fate_of(producer: KafkaProducer, topic: str, partition: int = 0) -> str:
    return shield.fate(producer.send(topic, b"v", partition=partition))


def test_a_frozen_broker_leaves_records_waiting_and_the_rule_acts_until_it_goes_on(
    own_kafka, make, freeze
):
    """Requests stay on the wire, what is behind them waits: after a quarter of a second, dropped.

    The signals say so meanwhile, although nothing is answered; then all that was taken arrives.
    """
    topic = create_topic(own_kafka.address, 1)
    producer = make("drop", client_queue_age="250ms")
    producer.send(topic, b"v").get(60)
    eventually(lambda: (producer.signals.requests, producer.signals.waits_since) == (0, None))
    go_on = freeze()
    frozen_at = time.monotonic()
    eventually(lambda: fate_of(producer, topic) == "dropped")
    assert time.monotonic() - frozen_at > 0.25
    assert producer.signals.requests >= 1  # kafka-python sends one for each partition at a time
    assert producer.signals.now() - producer.signals.waits_since > 0.25
    assert producer.shield.pressure() == 1.0
    assert [fate_of(producer, topic) for _ in range(1000)] == ["dropped"] * 1000
    taken = producer.shield.ledger().in_flight
    assert taken > 5
    go_on()
    eventually(lambda: fate_of(producer, topic) == "sent")
    producer.flush(30)
    eventually(lambda: (producer.signals.requests, producer.signals.waits_since) == (0, None))
    assert producer.shield.pressure() == 0.0
    ledger = producer.shield.ledger()
    assert ledger.drops == {("rule-1", "client_queue_age", "queue time"): ledger.dropped}
    assert ledger.delivered == taken + 2 == count(own_kafka.address, topic)


def test_unanswered_requests_are_over_their_limit_until_one_is_answered(own_kafka, make, freeze):
    """A frozen broker has three of them: no fourth is sent, and who waits goes on with it."""
    topic = create_topic(own_kafka.address, 4)
    producer = make("wait 30s", "drop", requests_in_flight=3)
    producer.send(topic, b"v").get(60)
    eventually(lambda: producer.signals.requests == 0)
    go_on = freeze()
    for partition in range(3):
        assert fate_of(producer, topic, partition) == "sent"
        eventually(lambda partition=partition: producer.signals.requests == partition + 1)
    sent: list[str] = []
    waiting = threading.Thread(target=lambda: sent.append(fate_of(producer, topic, 3)))
    waiting.start()
    eventually(lambda: producer.shield.engine.lines)
    time.sleep(0.3)
    assert sent == []
    assert producer.signals.requests == 3
    go_on()
    waiting.join(60)
    assert sent == ["sent"]
    producer.flush(30)
    assert count(own_kafka.address, topic) == producer.shield.ledger().delivered == 5


def test_records_for_a_broker_that_is_gone_wait_with_no_request_on_the_wire(own_kafka, make):
    """Killed: the queue's time says so, where the number of requests says nothing."""
    topic = create_topic(own_kafka.address, 1)
    producer = make("drop", client_queue_age="250ms")
    producer.send(topic, b"v").get(60)
    own_kafka.kill()
    try:
        eventually(lambda: fate_of(producer, topic) == "dropped")
        eventually(lambda: producer.signals.requests == 0)
        assert fate_of(producer, topic) == "dropped"
    finally:
        own_kafka.restart()
    eventually(lambda: fate_of(producer, topic) == "sent")
    producer.flush(60)
    assert count(own_kafka.address, topic) == producer.shield.ledger().delivered
