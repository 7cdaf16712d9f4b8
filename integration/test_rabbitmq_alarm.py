"""A RabbitMQ that takes no messages: consumers go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from pika import BasicProperties, URLParameters

from integration.brokers import RabbitMQ
from integration.queues import Queues
from integration.test_poison_rabbitmq import calls_back, generates, gets
from shield import Shield
from shield_rabbitmq import BlockingConnection

FRESH, STALE = 60, 30


@pytest.fixture(scope="module")
def own_rabbitmq(private_rabbitmq) -> RabbitMQ:
    """A RabbitMQ to be put into an alarm; every test ends it."""
    return private_rabbitmq()


@pytest.fixture
def alarm(own_rabbitmq: RabbitMQ) -> Iterator[Any]:
    """Call it to begin the alarm; it ends with the test."""
    yield lambda: own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
    own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


@pytest.mark.parametrize("chain", [["overflow", "drop"], ["overflow"]], ids=["drop", "no more"])
@pytest.mark.parametrize("consume", [calls_back, generates, gets])
def test_a_consumer_hands_over_what_is_fresh(own_rabbitmq, alarm, consume, chain):
    """Stale messages cannot be set aside meanwhile; they hold up no other."""
    with Queues(own_rabbitmq.address) as queues:
        queue, late = queues.queue(), queues.queue()
        for n in range(FRESH + STALE):
            age = -3600 if n % 3 else 3600
            fresh = BasicProperties(timestamp=int(time.time()) - age)
            queues.channel.basic_publish("", queue, b"stale" if age > 0 else b"fresh", fresh)
        alarm()
        rule = {"match": queue, "direction": "consume", "max_age": "1m"}
        to = [f"overflow /{late}" if action == "overflow" else action for action in chain]
        own = Shield({"rules": [{**rule, "over_limit": to}]})
        got: list[bytes] = []
        end = time.monotonic() + 60

        def done() -> bool:
            return got.count(b"fresh") == FRESH or time.monotonic() > end

        with BlockingConnection(URLParameters(own_rabbitmq.address), shield=own) as connection:
            consume(connection, queue, got, done)
            assert got.count(b"fresh") == FRESH
            assert own.ledger().balanced
            if "drop" in chain:
                assert b"stale" not in got
