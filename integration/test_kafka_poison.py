"""One bad record among 300 good ones, on a real Kafka: it fails alone, whichever way it goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient, NewTopic

import shield
from integration.reading import read
from shield_kafka import KafkaProducer
from tests.contracts.poison import BODIES, PoisonContract

AN_HOUR_AGO_MS = int(time.time() * 1000) - 3_600_000
TOPICS: dict[str, dict[str, str]] = {
    "too large": {"max.message.bytes": "20000"},
    "its time is out of range": {"message.timestamp.before.max.ms": "60000"},
    "no key in a compacted topic": {"cleanup.policy": "compact"},
}
"""What a topic refuses, by the settings that make it."""
BAD: dict[str, dict[str, Any]] = {
    "too large": {"value": b"bad" * 20_000},
    "its time is out of range": {"timestamp_ms": AN_HOUR_AGO_MS},
    "no key in a compacted topic": {"key": None},
}
"""What is wrong with the bad one."""
REASONS = tuple(BAD)


@pytest.fixture
def topic_that_refuses(kafka: Any, topic: str) -> Any:
    """Make a topic of one partition that refuses for a reason."""

    def make(reason: str) -> str:
        name = f"{topic}-{len(reason)}"
        with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
            admin.create_topics([NewTopic(name, 1, 1, topic_configs=TOPICS[reason])])
        return name

    return make


def record(number: int, reason: str | None = None) -> dict[str, Any]:
    good = {"value": BODIES[number], "key": b"k"}
    return good | ({} if reason is None else {"value": b"bad"} | BAD[reason])


def concurrent(future: Any) -> Future[Any]:
    """Return a kafka-python's future as one whose exception can be asked for."""
    result: Future[Any] = Future()
    future.add_callback(result.set_result)
    future.add_errback(result.set_exception)
    return result


class TestPublishing(PoisonContract):
    """Through `KafkaProducer`, in one batch with the others."""

    reasons = REASONS

    @pytest.fixture(autouse=True, params=[True, False], ids=["idempotent", "plain"])
    def made(
        self, kafka: Any, topic_that_refuses: Any, reason: str, request: Any
    ) -> Iterator[None]:
        self.topic, self.address = topic_that_refuses(reason), kafka.address
        rules = [{"match": "*", "in_flight": {"messages": 10_000}}]
        self.producer = KafkaProducer(
            bootstrap_servers=kafka.address,
            linger_ms=100,
            enable_idempotence=request.param,
            shield=shield.Shield({"rules": rules}),
        )
        self.producer.partitions_for(self.topic)
        yield
        self.producer.close(5)

    def send(self, body: bytes, reason: str | None) -> Future[Any]:
        more = {"value": body, "key": b"k"} | ({} if reason is None else BAD[reason])
        return concurrent(self.producer.send(self.topic, **more))

    def settle(self) -> None:
        self.producer.flush(30)

    def arrived(self) -> Counter[bytes]:
        return Counter(record.value for record in read(self.address, self.topic))

    @property
    def shield(self) -> shield.Shield:
        return self.producer.shield

    @property
    def destination(self) -> str:
        return self.topic


@pytest.mark.parametrize("reason", ["too large", "no key in a compacted topic"])
def test_one_that_its_topic_refuses_stays_alone_in_a_redrive(
    kafka, new_topic, topic_that_refuses, reason
):
    """It is named; all others go back, also those of its key behind it."""
    topic, aside = topic_that_refuses(reason), new_topic(1)
    rule = {"match": topic, "quota": {"rate": "1/h"}, "over_limit": [f"overflow {aside}"]}
    with KafkaProducer(bootstrap_servers=kafka.address, shield={"rules": [rule]}) as producer:
        producer.send(topic, b"first", key=b"k")
        for number, body in enumerate(BODIES):
            if number == len(BODIES) // 2:
                producer.send(topic, **{"value": b"bad", "key": b"k"} | BAD[reason])
            producer.send(topic, body, key=b"k")
    source = f"kafka://{kafka.address}/{aside}"
    redriven = shield.redrive(source, to="original", shield=shield.Shield({"rules": []}))
    assert (redriven.sent, redriven.failed, len(redriven.listed)) == (len(BODIES), 1, 1)
    assert redriven.listed[0].destination == topic
    found = Counter(record.value for record in read(kafka.address, topic))
    assert found == Counter([b"first", *BODIES])
