"""The shielded clients while their Kafka is killed, frozen, or lacks a topic."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import kafka
import psutil
import pytest
from kafka.errors import KafkaError, KafkaTimeoutError

import shield
from integration.brokers import Broker, create_topic
from integration.reading import count, read
from shield_kafka import KafkaConsumer, KafkaProducer

IN_FLIGHT = {"messages": 400, "bytes": "4MiB"}
OVERFLOWING = {"messages": 200, "bytes": "2MiB"}
"""Full in seconds, though threads get to send a hundred a second only: with all its requests in
flight to a frozen broker and more to send, kafka-python's I/O thread may loop without a pause."""


@pytest.fixture(scope="module")
def own_kafka(private_kafka) -> Broker:
    """A Kafka to be broken; every test leaves it running."""
    return private_kafka()


@pytest.fixture(scope="module")
def strict_kafka(private_kafka) -> Broker:
    """A Kafka that creates no topics by itself."""
    return private_kafka(auto_create_topics_enable=False)


@pytest.fixture
def topics(own_kafka: Broker) -> tuple[str, str]:
    """A topic and its overflow topic."""
    return create_topic(own_kafka.address), create_topic(own_kafka.address)


@pytest.fixture
def producer(own_kafka: Broker, topics: tuple[str, str]) -> Iterator[KafkaProducer]:
    """A producer whose in-flight messages are bounded and whose quota is 2,000 a second."""
    topic, overflow = topics
    to_overflow = {"overflow": {"destination": overflow, **OVERFLOWING}}
    rules = [
        {
            "name": "bound",
            "match": "*",
            "in_flight": IN_FLIGHT,
            "over_limit": [to_overflow, "drop"],
        },
        {
            "name": "quota",
            "match": topic,
            "quota": {"rate": "2000/s", "burst": 100},
            "over_limit": [to_overflow, "raise"],
        },
    ]
    producer = KafkaProducer(bootstrap_servers=own_kafka.address, shield={"rules": rules})
    for name in topics:
        producer.partitions_for(name)
    yield producer
    producer.close(timeout=30)


class Load:
    """Threads that send as fast as they can until stopped; what is raised is the chain's own."""

    def __init__(self, producer: KafkaProducer, topic: str, threads: int = 4) -> None:
        self._producer = producer
        self._topic = topic
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]
        self.raised = 0
        self._lock = threading.Lock()
        self.errors: list[BaseException] = []

    def _send(self) -> None:
        body = b"x" * 1000
        while not self._stop.is_set():
            try:
                self._producer.send(self._topic, body)
            except shield.OverLimitError:
                with self._lock:
                    self.raised += 1
            except BaseException as error:
                self.errors.append(error)
                return
            time.sleep(0.0002)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def check(producer: KafkaProducer, own_kafka: Broker, topics: tuple[str, str], load: Load) -> None:
    """The ledger balances, nothing is in flight, and the topics hold what it says."""
    producer.flush(60)
    ledger = producer.shield.ledger()
    topic, overflow = topics
    assert not load.errors
    assert ledger.balanced
    assert ledger.in_flight == 0
    assert ledger.failed == 0
    assert ledger.raised == load.raised
    assert count(own_kafka.address, topic) == ledger.delivered
    assert count(own_kafka.address, overflow) == ledger.overflowed
    assert ledger.delivered > 0
    assert ledger.overflowed > 0


def test_a_broker_killed_in_mid_stream_loses_nothing_from_the_books(own_kafka, topics, producer):
    """SIGKILL under load, then a restart: what the ledger says is what the topics hold."""
    with Load(producer, topics[0]) as load:
        time.sleep(2)
        own_kafka.kill()
        time.sleep(2)
        assert producer.shield.ledger().balanced
        own_kafka.restart()
        time.sleep(3)
    check(producer, own_kafka, topics, load)


def test_a_frozen_broker_fills_the_bound_and_no_memory(own_kafka, topics, producer):
    """SIGSTOP for 20 s under load: in flight stays within the bounds, the chain acts."""
    process = psutil.Process()
    with Load(producer, topics[0]) as load:
        time.sleep(3)
        before = process.memory_info().rss
        own_kafka.pause()
        try:
            most_in_flight, most_memory = watch(producer, process, 20)
            stopped = producer.shield.ledger()
        finally:
            own_kafka.resume()
        time.sleep(3)
    assert most_in_flight <= 400 + 2 * 200 + 4  # and what each thread is deciding on
    assert most_memory - before < (400 + 2 * 200) * 1000 + 50 * 2**20
    assert stopped.dropped > 100
    assert stopped.balanced
    check(producer, own_kafka, topics, load)


def watch(producer: KafkaProducer, process: psutil.Process, seconds: float) -> tuple[int, int]:
    """Return the most in flight and the most memory seen within so many seconds."""
    end = time.monotonic() + seconds
    in_flight = memory = 0
    while time.monotonic() < end:
        ledger = producer.shield.ledger()
        assert ledger.balanced
        in_flight = max(in_flight, ledger.in_flight)
        memory = max(memory, process.memory_info().rss)
        time.sleep(0.2)
    return in_flight, memory


def close_within(producer: Any, timeout: float) -> tuple[float, str]:
    """Close, and return how long it took and what it raised."""
    began = time.monotonic()
    try:
        producer.close(timeout=timeout)
    except KafkaError as error:
        return time.monotonic() - began, type(error).__name__
    return time.monotonic() - began, "nothing"


def test_close_with_the_broker_gone_does_what_the_client_does(own_kafka, topics):
    """`close(timeout=1)` ends as the bare client's, in as much time, and the books balance."""
    bare = kafka.KafkaProducer(bootstrap_servers=own_kafka.address)
    ours = KafkaProducer(
        bootstrap_servers=own_kafka.address,
        shield={"rules": [{"match": "*", "in_flight": IN_FLIGHT}]},
    )
    for producer in (bare, ours):
        producer.send(topics[0], b"warm").get(60)
    own_kafka.kill()
    try:
        for producer in (bare, ours):
            for _ in range(100):
                producer.send(topics[0], b"v")
        expected_s, expected = close_within(bare, 1)
        took_s, raised = close_within(ours, 1)
    finally:
        own_kafka.restart()
    assert raised == expected
    assert took_s < expected_s + 1
    ledger = ours.shield.ledger()
    assert ledger.balanced
    assert ledger.offered == 101
    for producer in (bare, ours):
        producer.close(timeout=30)
    assert ours.shield.ledger().balanced
    assert ours.shield.ledger().in_flight == 0


def test_a_missing_overflow_topic_lets_the_chain_go_on(strict_kafka):
    """With auto-creation off nothing hangs; once the topic is made, messages go there."""
    topic, overflow = create_topic(strict_kafka.address), "made-later"
    rule = {
        "match": topic,
        "quota": {"rate": "1/h", "burst": 1},
        "over_limit": [f"overflow {overflow}", "drop"],
    }
    with KafkaProducer(
        bootstrap_servers=strict_kafka.address, shield={"rules": [rule]}
    ) as producer:
        producer.send(topic, b"first").get(60)
        began = time.monotonic()
        fates = [shield.fate(producer.send(topic, b"v")) for _ in range(100)]
        took_s = time.monotonic() - began
        assert set(fates) == {"dropped"}
        assert took_s < 4
        create_named(strict_kafka.address, overflow)
        until = time.monotonic() + 20
        while shield.fate(producer.send(topic, b"v")) != "overflowed":
            assert time.monotonic() < until, "the overflow topic was never found"
            time.sleep(0.2)
        producer.flush()
        ledger = producer.shield.ledger()
    assert ledger.balanced
    assert count(strict_kafka.address, overflow) == ledger.overflowed == 1


def test_a_topic_that_is_not_there_does_what_the_client_does(strict_kafka):
    """The bare client's error from `send` itself; no quota is charged, the end is `failed`."""
    topic = create_topic(strict_kafka.address)
    rule = {"match": "*", "quota": {"rate": "1/h", "burst": 1}, "over_limit": "raise"}
    configs = {"bootstrap_servers": strict_kafka.address, "max_block_ms": 1500}
    with kafka.KafkaProducer(**configs) as bare, pytest.raises(KafkaTimeoutError):
        bare.send("nowhere", b"v")
    with KafkaProducer(shield={"rules": [rule]}, **configs) as producer:
        with pytest.raises(KafkaTimeoutError):
            producer.send("nowhere", b"v")
        producer.send(topic, b"the one the quota has").get(60)
        ledger = producer.shield.ledger()
    assert (ledger.offered, ledger.failed, ledger.delivered) == (2, 1, 1)


def test_a_batch_that_is_too_large_for_the_broker_is_split_and_accounted_for(private_kafka):
    """kafka-python splits it; every message is delivered, and every permit settled."""
    small = private_kafka(message_max_bytes=20_000)
    topic = create_topic(small.address, 1)
    rule = {"match": topic, "in_flight": {"messages": 1000}, "over_limit": "raise"}
    with KafkaProducer(
        bootstrap_servers=small.address,
        shield={"rules": [rule]},
        batch_size=200_000,
        linger_ms=300,
    ) as producer:
        futures = [producer.send(topic, b"x" * 1000) for _ in range(150)]
        assert sorted(future.get(60).offset for future in futures) == list(range(150))
        ledger = producer.shield.ledger()
    assert (ledger.delivered, ledger.in_flight) == (150, 0)
    assert count(small.address, topic) == 150


def create_named(address: str, name: str) -> None:
    """Create a topic of this name."""
    with kafka.KafkaAdminClient(bootstrap_servers=address) as admin:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})


FORK = """
import os, sys
import shield
from shield_kafka import ForkedProducerError, KafkaProducer

address, topic = sys.argv[1:]
rules = {"rules": [{"match": topic, "in_flight": {"messages": 10}, "over_limit": "raise"}]}
producer = KafkaProducer(bootstrap_servers=address, shield=rules)
for _ in range(5):
    producer.send(topic, b"parent").get(60)
child = os.fork()
if child == 0:
    status = 1
    try:
        assert producer.shield.ledger().offered == 0, producer.shield.ledger()
        try:
            producer.send(topic, b"never")
        except ForkedProducerError:
            own = KafkaProducer(bootstrap_servers=address, shield=producer.shield)
            for _ in range(20):
                own.send(topic, b"child").get(60)
            own.close()
            ledger = shield.ledger()
            assert (ledger.offered, ledger.delivered) == (20, 20), ledger
            status = 0
    finally:
        os._exit(status)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
for _ in range(5):
    producer.send(topic, b"parent").get(60)
producer.close()
ledger = producer.shield.ledger()
assert (ledger.offered, ledger.delivered, ledger.balanced) == (10, 10, True), ledger
"""


def test_a_fork_leaves_the_parents_books_alone_and_the_child_starts_fresh(own_kafka, topics):
    """The child's ledger is empty, its inherited producer says so, a new one works."""
    script = textwrap.dedent(FORK)
    subprocess.run(
        [sys.executable, "-c", script, own_kafka.address, topics[0]],
        check=True,
        timeout=150,
        env=os.environ,
    )
    assert count(own_kafka.address, topics[0]) == 30


def test_buffered_messages_outlive_a_broker_that_is_killed(own_kafka, topics):
    """SIGKILL while hundreds are kept: after the restart all arrive, each key in order."""
    own, topic = own_kafka, topics[0]
    bound = {"match": topic, "in_flight": {"messages": 20}, "order": "key", "over_limit": "buffer"}
    producer = KafkaProducer(bootstrap_servers=own.address, shield={"rules": [bound]})
    producer.send(topic, b"0", b"k").get(60)
    own.kill()
    futures = [producer.send(topic, b"%d" % number, b"k") for number in range(1, 501)]
    assert producer.shield.ledger().buffered == 480
    own.restart()
    producer.flush(60)
    assert all(future.get(0).offset >= 0 for future in futures)
    assert [int(record.value) for record in read(own.address, topic)] == list(range(501))
    ledger = producer.shield.ledger()
    assert (ledger.offered, ledger.delivered, ledger.balanced) == (501, 501, True)
    own.pause()
    try:
        futures = [producer.send(topic, b"later", b"k") for _ in range(100)]
        frozen = producer.shield.ledger()
        assert (frozen.in_flight, frozen.buffered) == (20, 80)
        began = time.monotonic()
        with suppress(KafkaError):  # as the bare client's, which cannot flush
            producer.close(timeout=1)
        assert time.monotonic() - began < 4
        with pytest.raises(shield.OverLimitError):
            futures[-1].get(0)
        fates = [shield.fate(future) for future in futures]
        assert fates == ["sent"] * 20 + ["raised"] * 80
        assert producer.shield.ledger().raised == 80
        assert producer.shield.ledger().balanced
    finally:
        own.resume()
        producer.close(timeout=30)
    assert producer.shield.ledger().in_flight == 0


# --- the consumer -------------------------------------------------------------------------------


@pytest.fixture
def stale(own_kafka: Broker, topics: tuple[str, str]) -> Iterator[KafkaConsumer]:
    """A consumer of 3,000 messages that are too old, and go to the overflow topic; 100 are not."""
    topic, overflow = topics
    two_hours_ago_ms = int(time.time() - 7200) * 1000  # not older than a broker's retention
    with kafka.KafkaProducer(bootstrap_servers=own_kafka.address) as bare:
        for number in range(3000):
            bare.send(topic, b"%d" % number, timestamp_ms=two_hours_ago_ms, partition=0)
        for number in range(3000, 3100):
            bare.send(topic, b"%d" % number, partition=0)
    rule = {
        "name": "fresh",
        "match": topic,
        "direction": "consume",
        "max_age": "1h",
        "over_limit": [f"overflow {overflow}"],
    }
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=own_kafka.address,
        shield={"rules": [rule]},
        group_id=topic,
        auto_offset_reset="earliest",
        max_poll_records=1500,
    )
    yield consumer
    consumer.close(timeout_ms=5000)


def divert_some(consumer: KafkaConsumer) -> None:
    """Poll until some were confirmed elsewhere, and others are on their way."""
    while not consumer.assignment():
        consumer.poll(500)  # with less, the client itself may never come to join its group
    while consumer.shield.ledger().overflowed < 300 or consumer._aside.under_way < 50:
        assert consumer.poll(5) == {}


def test_a_broker_frozen_while_a_consumer_diverts_passes_nothing_unconfirmed(
    own_kafka, topics, stale
):
    """`poll` comes back in time meanwhile; afterwards all goes on where it was."""
    place = kafka.TopicPartition(topics[0], 0)
    divert_some(stale)
    own_kafka.pause()
    try:
        for _ in range(10):
            begun = time.monotonic()
            assert stale.poll(200) == {}
            assert time.monotonic() - begun < 1.0
            ledger = stale.shield.ledger()
            assert ledger.balanced
            assert stale.position(place) <= ledger.overflowed
    finally:
        own_kafka.resume()
    found: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(found) < 100 and time.monotonic() < deadline:
        for records in stale.poll(500).values():
            found += [record.value for record in records]
    assert found == [b"%d" % number for number in range(3000, 3100)]
    overflowed = {record.value for record in read(own_kafka.address, topics[1])}
    assert overflowed == {b"%d" % number for number in range(3000)}
    assert stale.shield.ledger().overflowed == 3000


def test_a_consumer_that_closes_while_its_broker_is_gone_leaves_the_rest_to_others(
    own_kafka, topics, stale
):
    """Within its time; what was not confirmed has failed here, and comes again."""
    divert_some(stale)
    own_kafka.pause()
    try:
        begun = time.monotonic()
        stale.close(timeout_ms=2000)
        assert time.monotonic() - begun < 12.0
    finally:
        own_kafka.resume()
    ledger = stale.shield.ledger()
    assert ledger.balanced
    assert (ledger.in_flight, ledger.delivered) == (0, 0)
    assert ledger.failed > 0
    with kafka.KafkaConsumer(bootstrap_servers=own_kafka.address, group_id=topics[0]) as other:
        committed = other.committed(kafka.TopicPartition(topics[0], 0)) or 0
    assert committed <= ledger.overflowed
