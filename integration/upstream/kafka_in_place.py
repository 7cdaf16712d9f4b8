"""A pytest plugin: kafka-python's clients are Shield's, wherever tests take them from."""

from __future__ import annotations

from collections.abc import Iterator

import kafka
import kafka.consumer
import kafka.consumer.group
import kafka.producer
import kafka.producer.kafka
import pytest

import shield
from shield_kafka import KafkaConsumer, KafkaProducer

for _module in (kafka, kafka.producer, kafka.producer.kafka):
    _module.KafkaProducer = KafkaProducer
for _module in (kafka, kafka.consumer, kafka.consumer.group):
    _module.KafkaConsumer = KafkaConsumer


@pytest.fixture(autouse=True, scope="session")
def _all_went_through_shield() -> Iterator[None]:
    """Every message of every test is in the ledger, each with its end."""
    yield
    ledger = shield.ledger()
    assert ledger.offered > 0
    assert ledger.balanced
    assert ledger.in_flight == 0
