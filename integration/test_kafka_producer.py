"""The shielded producer on a real Kafka: the ledger against what the topics hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

import shield
from integration.brokers import Broker
from integration.reading import count, read
from shield.testing import ManualClock
from shield_kafka import KafkaProducer

ONE_AN_HOUR = {"rate": "1/h", "burst": 1}


def producer_of(kafka: Broker, *rules: dict[str, Any], **configs: Any) -> KafkaProducer:
    """A shielded producer with a Shield of its own."""
    return KafkaProducer(bootstrap_servers=kafka.address, shield={"rules": list(rules)}, **configs)


@pytest.mark.smoke
def test_what_is_over_the_quota_is_in_the_overflow_topic(kafka, new_topic):
    """Produce, overflow and consume: key, headers and timestamp of each message are kept.

    The timestamp in a header: by its own the overflow topic's retention would delete an old one.
    """
    topic, overflow = new_topic(4), new_topic(1)
    rule = {
        "name": "orders",
        "match": topic,
        "quota": ONE_AN_HOUR,
        "over_limit": f"overflow {overflow}",
    }
    began_ms = int(time.time() * 1000)
    with producer_of(kafka, rule) as producer:
        first = producer.send(topic, b"first", b"k").get(60)
        second = producer.send(topic, b"second", b"k", [("h", b"1")], 3, 1234567890123).get(60)
        assert (first.topic, second.topic) == (topic, overflow)
        assert second.timestamp >= began_ms
    (record,) = read(kafka.address, overflow)
    headers = dict(record.headers)
    assert (record.key, record.value, record.timestamp) == (b"k", b"second", second.timestamp)
    assert headers["shield-original-timestamp"] == b"1234567890123"
    assert headers["h"] == b"1"
    assert headers["shield-original-destination"] == topic.encode()
    assert headers["shield-rule"] == b"orders"
    ledger = producer.shield.ledger()
    assert (ledger.delivered, ledger.overflowed, ledger.offered) == (1, 1, 2)
    assert ledger.balanced


def test_eight_threads_at_three_times_the_quota_are_held_to_it(kafka, new_topic):
    """200,000 messages: admitted is what quota and burst allow, and every one is accounted for.

    Time moves with the messages, by a third of what the quota takes for each.
    """
    topic, overflow = new_topic(4), new_topic(4)
    rate, burst, threads, each = 1200, 1200, 8, 25_000
    rule = {
        "match": topic,
        "quota": {"rate": f"{rate}/s", "burst": burst},
        "over_limit": [f"overflow {overflow}", "drop"],
    }
    clock = ManualClock()
    producer = KafkaProducer(
        bootstrap_servers=kafka.address, shield=shield.Shield({"rules": [rule]}, clock=clock)
    )
    producer.partitions_for(topic)
    producer.partitions_for(overflow)
    began_s = clock.now()

    def send() -> None:
        for _ in range(each):
            producer.send(topic, b"x" * 100)
            clock.advance(1 / (3 * rate))

    in_threads(send, threads)
    allowed = burst + rate * (clock.now() - began_s)
    producer.close()
    ledger = producer.shield.ledger()
    assert ledger.offered == threads * each
    assert ledger.offered > 2 * allowed
    assert ledger.delivered == pytest.approx(allowed, abs=threads + 1)
    assert ledger.delivered + ledger.overflowed + ledger.dropped + ledger.raised == ledger.offered
    assert count(kafka.address, topic) == ledger.delivered
    assert count(kafka.address, overflow) == ledger.overflowed


def test_a_transaction_shares_its_fate_with_its_overflow(kafka, new_topic):
    """Readers of committed messages see both topics' after commit, neither's after abort."""
    topic, overflow = new_topic(1), new_topic(1)
    rule = {"match": topic, "quota": ONE_AN_HOUR, "over_limit": f"overflow {overflow}"}
    with producer_of(kafka, rule, transactional_id=f"shield-{topic}") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"kept").get(60)
        producer.send(topic, b"kept, over the limit").get(60)
        assert producer.shield.ledger().in_flight == 2
        producer.commit_transaction()
        producer.begin_transaction()
        producer.send(topic, b"aborted, over the limit").get(60)
        producer.abort_transaction()
        ledger = producer.shield.ledger()
    assert (ledger.delivered, ledger.overflowed, ledger.failed) == (1, 1, 1)
    assert ledger.balanced
    committed = {"isolation_level": "read_committed"}
    assert values(kafka, topic, **committed) == [b"kept"]
    assert values(kafka, overflow, **committed) == [b"kept, over the limit"]


def values(kafka: Broker, topic: str, **configs: Any) -> list[bytes]:
    """What a reader of a one-partition topic gets to see within two seconds."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.address,
        auto_offset_reset="earliest",
        consumer_timeout_ms=2000,
        **configs,
    )
    consumer.assign([TopicPartition(topic, 0)])
    try:
        return [record.value for record in consumer]
    finally:
        consumer.close()


@pytest.mark.alone
def test_a_wait_on_a_real_broker_spreads_sends_over_time(kafka, topic):
    """Threads that wait get their turn at the quota's rate; none is refused."""
    quota = {"rate": "200/s", "burst": 1}
    producer = producer_of(kafka, {"match": topic, "quota": quota, "over_limit": "wait 10s"})
    producer.partitions_for(topic)
    began = time.monotonic()
    in_threads(lambda: [producer.send(topic, b"v") for _ in range(50)], 4)
    took_s = time.monotonic() - began
    producer.close()
    assert producer.shield.ledger().delivered == 200
    assert took_s >= 199 / 200
    assert count(kafka.address, topic) == 200


def in_threads(work: Callable[[], object], threads: int) -> None:
    """Run the work in so many threads at once, and raise what any of them raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for error in errors:
        raise error


def test_two_producers_share_a_quota_by_name(kafka, topic):
    """One name, one quota; another name, another."""
    shared = shield.Shield(
        {"rules": [{"match": topic, "quota": ONE_AN_HOUR, "over_limit": "drop"}]}
    )
    fates = []
    for name in ("a", "a", "b"):
        with KafkaProducer(
            bootstrap_servers=kafka.address, shield=shared, shield_producer=name
        ) as producer:
            fates.append(shield.fate(producer.send(topic, b"v")))
    assert fates == ["sent", "dropped", "sent"]
    assert count(kafka.address, topic) == 2
