"""Transactions on a real broker: what committed readers see is what the ledger says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import confluent_kafka
import pytest
from kafka.errors import IllegalStateError, KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

import shield
from integration.brokers import Broker
from shield_kafka import KafkaConsumer, KafkaProducer

ROUNDS, EACH = 12, 40
"""How many transactions, and messages in each."""
QUOTA = {"rate": "1/d", "burst": ROUNDS * EACH // 2}
Make = Callable[..., KafkaProducer]


@pytest.fixture
def make(kafka: Broker) -> Iterator[Make]:
    """A transactional producer under one rule for a topic; closed at the end."""
    with ExitStack() as stack:

        def make(topic: str, *chain: str, **configs: Any) -> KafkaProducer:
            rule = {"name": "orders", "match": topic, "quota": QUOTA, "over_limit": [*chain]}
            configs = {"transactional_id": f"t-{topic}", "shield": {"rules": [rule]}} | configs
            producer = KafkaProducer(bootstrap_servers=kafka.address, **configs)
            stack.callback(producer.close, timeout=30)
            producer.init_transactions()
            return producer

        yield make


def committed(address: str, topic: str) -> list[bytes]:
    """What a reader of committed messages finds, by a client that knows nothing of Shield."""
    reader = confluent_kafka.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    places = reader.list_topics(topic, timeout=30).topics[topic].partitions
    reader.assign([confluent_kafka.TopicPartition(topic, place, 0) for place in places])
    bodies, ended = [], 0
    while ended < len(places):
        message = reader.poll(60)
        assert message is not None
        if message.error() is None:
            bodies.append(message.value())
            continue
        assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF
        ended += 1
    reader.close()
    return bodies


@contextmanager
def transaction(producer: KafkaProducer, *, commits: bool) -> Iterator[None]:
    producer.begin_transaction()
    yield
    if commits:
        producer.commit_transaction()
    else:
        producer.abort_transaction()


def send(producer: KafkaProducer, topic: str, body: bytes) -> str:
    """Send one; return its fate."""
    try:
        return shield.fate(producer.send(topic, body, key=body[-1:]))
    except shield.OverLimitError:
        return "raised"


@pytest.mark.parametrize(
    "chain",
    [
        ["drop"],
        ["raise"],
        ["wait 10ms", "drop"],
        ["overflow {}.aside", "raise"],
        ["overflow file://{folder}/aside", "drop"],
        ["overflow kafka://{broker}/{}.aside", "raise"],
        ["buffer 1000", "spool 10MiB", "raise"],
    ],
    ids=" ".join,
)
def test_the_ledger_is_what_committed_readers_see(kafka, new_topic, make, tmp_path, chain):
    """Of each of many transactions all or nothing, also of what overflowed; nothing escapes one."""
    topic = new_topic(2)
    links = [one.format(topic, broker=kafka.address, folder=tmp_path) for one in chain]
    producer = make(topic, *links)
    producer.partitions_for(topic)
    producer.partitions_for(f"{topic}.aside")
    expected: dict[str, list[bytes]] = {"sent": [], "overflowed": [], "raised": [], "dropped": []}
    ends = [True, False] * (ROUNDS // 2)
    random.shuffle(ends)
    for number, commits in enumerate(ends):
        with transaction(producer, commits=commits):
            for each in range(EACH):
                body = b"%d-%d" % (number, each)
                fate = send(producer, topic, body)
                if commits or fate in ("raised", "dropped"):
                    expected[fate].append(body)
            before = producer.shield.ledger()
            assert before.delivered <= len(expected["sent"])
        assert producer.shield.ledger().in_flight == 0
    ledger = producer.shield.ledger()
    assert ledger.balanced
    assert sorted(committed(kafka.address, topic)) == sorted(expected["sent"])
    assert sorted(committed(kafka.address, f"{topic}.aside")) == sorted(expected["overflowed"])
    assert (ledger.delivered, ledger.overflowed, ledger.raised, ledger.dropped) == tuple(
        len(expected[fate]) for fate in ("sent", "overflowed", "raised", "dropped")
    )
    assert ledger.failed == ROUNDS * EACH - sum(map(len, expected.values()))
    assert ledger.failed > 0
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("way", ["abort", "close", "an exception ends the program's block"])
def test_what_was_not_committed_counts_as_failed(kafka, new_topic, make, way):
    """Also what the broker has not answered yet."""
    topic = new_topic(1)
    producer = make(topic, f"overflow {topic}.aside", "raise", linger_ms=5000)
    for name in (topic, f"{topic}.aside"):
        producer.partitions_for(name)
    producer.begin_transaction()
    for number in range(ROUNDS * EACH):
        producer.send(topic, b"%d" % number)
    if way == "abort":
        producer.abort_transaction()
    elif way == "close":
        producer.close()
    else:
        with suppress(RuntimeError), producer:
            raise RuntimeError
    ledger = producer.shield.ledger()
    assert (ledger.failed, ledger.offered) == (ROUNDS * EACH, ROUNDS * EACH)
    assert ledger.balanced
    assert committed(kafka.address, topic) == []
    assert committed(kafka.address, f"{topic}.aside") == []


def test_offsets_are_committed_with_what_was_made_of_the_messages(kafka, new_topic, make):
    """Read, change, write: an abort gives the messages back, and a commit passes each once."""
    source, topic, group = new_topic(1), new_topic(1), "g-transactions"
    place = TopicPartition(source, 0)
    feeder = make(source, "raise", transactional_id=f"feeder-{source}")
    with transaction(feeder, commits=True):
        for number in range(100):
            feeder.send(source, b"%d" % number)
    with transaction(feeder, commits=False):
        feeder.send(source, b"never there")
    producer = make(topic, f"overflow {topic}.aside", "raise")
    rule = {"match": source, "direction": "consume", "quota": "100000/s", "over_limit": "wait"}
    for commits in (False, True):
        consumer = KafkaConsumer(
            source,
            bootstrap_servers=kafka.address,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            shield={"rules": [rule]},
        )
        with consumer, transaction(producer, commits=commits):
            read = 0
            while read < 100:
                for record in [r for records in consumer.poll(500).values() for r in records]:
                    producer.send(topic, b"%d" % (int(record.value) * 2))
                    read = record.offset + 1
            offsets = {place: OffsetAndMetadata(read, "", -1)}
            producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        assert stored_offset(kafka.address, group, source) == (100 if commits else None)
    made = committed(kafka.address, topic) + committed(kafka.address, f"{topic}.aside")
    assert sorted(made, key=int) == [b"%d" % (2 * number) for number in range(100)]
    ledger = producer.shield.ledger()
    assert (ledger.delivered + ledger.overflowed, ledger.failed) == (100, 100)
    assert ledger.balanced


def stored_offset(address: str, group: str, topic: str) -> int | None:
    """What the group has committed of the topic's one partition."""
    reader = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": group})
    (found,) = reader.committed([confluent_kafka.TopicPartition(topic, 0)], timeout=30)
    reader.close()
    return None if found.offset < 0 else found.offset


def test_one_that_another_has_fenced_off_has_delivered_nothing(kafka, new_topic, make):
    """Its commit fails; its messages are in flight until it is closed, and then have failed."""
    topic = new_topic(1)
    first = make(topic, f"overflow {topic}.aside", "raise")
    first.begin_transaction()
    futures = [first.send(topic, b"fenced off") for _ in range(ROUNDS * EACH)]
    futures[-1].get(60)
    second = make(topic, "raise")
    with pytest.raises(KafkaError):
        first.commit_transaction()
    ledger = first.shield.ledger()
    assert (ledger.delivered, ledger.overflowed) == (0, 0)
    with transaction(second, commits=True):
        second.send(topic, b"there")
    first.close()
    ledger = first.shield.ledger()
    assert (ledger.failed, ledger.in_flight, ledger.balanced) == (ROUNDS * EACH, 0, True)
    assert committed(kafka.address, topic) == [b"there"]
    assert committed(kafka.address, f"{topic}.aside") == []


@pytest.mark.parametrize("chain", ["drop", "raise", "overflow {}.aside"])
def test_outside_of_a_transaction_nothing_is_taken(new_topic, make, chain):
    """The client's own error, whether the limit is reached or not; nothing is charged."""
    topic = new_topic(1)
    producer = make(topic, chain.format(topic))
    producer.partitions_for(f"{topic}.aside")
    for _ in range(2):
        before = producer.shield.ledger()
        with pytest.raises(IllegalStateError):
            producer.send(topic, b"nowhere")
        after = producer.shield.ledger()
        assert after.failed == before.failed + 1
        assert (after.delivered, after.in_flight, after.dropped) == (
            before.delivered,
            0,
            before.dropped,
        )
        with transaction(producer, commits=True):
            for number in range(QUOTA["burst"]):
                with suppress(shield.OverLimitError):
                    producer.send(topic, b"%d" % number)
        assert producer.shield.ledger().delivered == QUOTA["burst"]
