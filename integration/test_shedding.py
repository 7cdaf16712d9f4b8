"""Shedding by priority and adaptive limits, on real brokers under more than they take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pika import BasicProperties

import shield
from integration.queues import Queues
from shield import Shield
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher

pytestmark = pytest.mark.alone

NAMES = ("critical-plus", "critical", *["sheddable-plus"] * 28, *["sheddable"] * 70)
"""Of a hundred messages: of the first kind one, ..."""
SECONDS, AT_LEAST = 3.0, 10_000
"""How long, and how many messages also where the broker is slow."""


def taken_per_s(publish: Callable[[bytes], Any], flush: Callable[[], Any]) -> float:
    """Return how many messages the broker takes a second from a client without rules."""
    began = time.monotonic()
    for _ in range(1000):
        publish(b"x" * 2000)
    flush()
    return 1000 / (time.monotonic() - began)


def overload(
    publish: Callable[[str, bytes], Any], per_s: float
) -> tuple[Counter[str], Counter[str]]:
    """Publish so many a second; return how many of each kind were offered and shed."""
    offered: Counter[str] = Counter()
    shed: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(max(AT_LEAST, int(SECONDS * per_s))):
        name = NAMES[number * 37 % len(NAMES)]
        future = publish(name, b"user-%d" % (number % 997))
        offered[name] += 1
        shed[name] += shield.fate(future) == "dropped"
        ahead_s = began + number / per_s - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
    return offered, shed


def check(offered: Counter[str], shed: Counter[str], own: Shield, delivered: int) -> None:
    """The less critical, the more was shed; of the most critical some, while all was full."""
    assert sum(shed.values()) > sum(offered.values()) / 2, "it was no overload"
    most, critical, plus, sheddable = (shed[n] / offered[n] for n in dict.fromkeys(NAMES))
    assert most < critical + 0.1  # one in a hundred each: a few hundred messages
    assert critical < plus < sheddable
    assert most < 0.3 < 0.7 < sheddable
    ledger = own.ledger()
    assert ledger.balanced
    assert ledger.in_flight == 0
    assert ledger.offered == sum(offered.values())
    assert ledger.dropped == sum(shed.values())
    assert ledger.delivered == delivered


@pytest.mark.parametrize("bound", [{"adaptive": {"min": 100, "max": 500}}])
def test_a_publisher_sheds_the_least_critical_first(rabbitmq, bound):
    """One thread brings five times what RabbitMQ confirms, persistent and ten at once."""
    rule = {"match": "*", **bound, "shed": {"by": "priority", "per": "header:user"}}
    settings = {"rules": [rule | {"over_limit": "drop"}]}
    with Queues(rabbitmq.address) as queues:
        queue = queues.queue()

        def publish(name: str, user: bytes) -> Any:
            headers = {"shield-criticality": name, "user": user}
            properties = BasicProperties(headers=headers, delivery_mode=2)
            return publisher.publish("", queue, b"x" * 2000, properties)

        with Publisher(rabbitmq.address, shield={}, window=10) as bare:
            persistent = BasicProperties(delivery_mode=2)
            capacity = taken_per_s(
                lambda body: bare.publish("", queue, body, persistent), lambda: bare.flush(60)
            )
        queues.channel.queue_purge(queue)
        with Publisher(rabbitmq.address, shield=settings, window=10) as publisher:
            publish("critical-plus", b"first").result(60)
            offered, shed = overload(publish, 5 * capacity)
        offered["critical-plus"] += 1
        check(offered, shed, publisher.shield, queues.depth(queue))
        assert 100 <= publisher.shield.status()["rule-1"]["adaptive"]["limit"] <= 500


def test_a_producer_sheds_the_least_critical_first(kafka, new_topic):
    """One thread brings five times what Kafka answers, one after another."""
    topic = new_topic(1)
    rule = {"match": "*", "adaptive": {"min": 100, "max": 500}, "shed": "priority"}
    settings = {"rules": [rule | {"over_limit": "drop"}]}
    one_by_one = {"batch_size": 1, "max_in_flight_requests_per_connection": 1}
    with KafkaProducer(bootstrap_servers=kafka.address, shield={}, **one_by_one) as bare:
        bare.send(topic, b"first").get(60)
        capacity = taken_per_s(lambda body: bare.send(topic, body), bare.flush)
    with KafkaProducer(bootstrap_servers=kafka.address, shield=settings, **one_by_one) as producer:
        producer.send(topic, b"first", headers=[("shield-criticality", b"critical-plus")]).get(60)
        offered, shed = overload(
            lambda name, user: producer.send(
                topic, b"x" * 2000, key=user, headers=[("shield-criticality", name.encode())]
            ),
            5 * capacity,
        )
        producer.flush()
        offered["critical-plus"] += 1
        own = producer.shield
        check(offered, shed, own, sum(offered.values()) - sum(shed.values()))
        assert own.status()["rule-1"]["adaptive"]["limit"] >= 100
        assert producer.signals.latency.recent is not None
