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

NAMES = ("critical-plus", "critical", *["sheddable-plus"] * 28, *["sheddable"] * 70)
"""Of a hundred messages: of the first kind one, ..."""
SECONDS = 3.0


def overload(publish: Callable[[str, bytes], Any]) -> tuple[Counter[str], Counter[str]]:
    """Publish as fast as one thread can; return how many of each kind were offered and shed."""
    offered: Counter[str] = Counter()
    shed: Counter[str] = Counter()
    until = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < until:
        name = NAMES[number * 37 % len(NAMES)]
        future = publish(name, b"user-%d" % (number % 997))
        offered[name] += 1
        shed[name] += shield.fate(future) == "dropped"
        number += 1
    return offered, shed


def check(offered: Counter[str], shed: Counter[str], own: Shield, delivered: int) -> None:
    """The less critical, the more was shed; of the most critical some, while all was full."""
    most, critical, plus, sheddable = (shed[n] / offered[n] for n in dict.fromkeys(NAMES))
    assert most < critical + 0.05
    assert critical < plus < sheddable
    assert most < 0.5 < 0.9 < sheddable
    ledger = own.ledger()
    assert ledger.balanced
    assert ledger.in_flight == 0
    assert ledger.offered == sum(offered.values())
    assert ledger.dropped == sum(shed.values())
    assert ledger.delivered == delivered


@pytest.mark.parametrize("bound", [{"adaptive": {"min": 100, "max": 500}}])
def test_a_publisher_sheds_the_least_critical_first(rabbitmq, bound):
    """One thread brings several times what RabbitMQ confirms, persistent and one by one."""
    rule = {"match": "*", **bound, "shed": {"by": "priority", "per": "header:user"}}
    settings = {"rules": [rule | {"over_limit": "drop"}]}
    with Queues(rabbitmq.address) as queues:
        queue = queues.queue()

        def publish(name: str, user: bytes) -> Any:
            headers = {"shield-criticality": name, "user": user}
            properties = BasicProperties(headers=headers, delivery_mode=2)
            return publisher.publish("", queue, b"x" * 2000, properties)

        with Publisher(rabbitmq.address, shield=settings) as publisher:
            publish("critical-plus", b"first").result(10)
            offered, shed = overload(publish)
        offered["critical-plus"] += 1
        check(offered, shed, publisher.shield, queues.depth(queue))
        assert 100 <= publisher.shield.status()["rule-1"]["adaptive"]["limit"] <= 500


def test_a_producer_sheds_the_least_critical_first(kafka, topic):
    """One thread brings more than comes back from Kafka with a few messages in flight."""
    rule = {"match": "*", "adaptive": {"min": 100, "max": 500}, "shed": "priority"}
    settings = {"rules": [rule | {"over_limit": "drop"}]}
    with KafkaProducer(bootstrap_servers=kafka.address, shield=settings) as producer:
        producer.send(topic, b"first", headers=[("shield-criticality", b"critical-plus")]).get(10)
        offered, shed = overload(
            lambda name, user: producer.send(
                topic, b"x" * 2000, key=user, headers=[("shield-criticality", name.encode())]
            )
        )
        producer.flush()
        offered["critical-plus"] += 1
        own = producer.shield
        check(offered, shed, own, sum(offered.values()) - sum(shed.values()))
        assert own.status()["rule-1"]["adaptive"]["limit"] >= 100
        assert producer.signals.latency.recent is not None
