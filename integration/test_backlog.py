"""The policy `backlog` on the lag of a real group and the depth of a real queue."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.protocol.admin.client_quotas import AlterClientQuotasRequest
from kafka.structs import OffsetAndMetadata

import shield
from integration.brokers import create_topic
from integration.queues import Queues
from shield import Shield
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher
from tests.eventually import eventually


def status(own: Shield) -> dict[str, Any]:
    return own.status()["rule-1"]["backlog"]


def pollers() -> int:
    return sum(thread.name == "shield-backlog" for thread in threading.enumerate())


def rule(match: str, limit: int = 200, **more: Any) -> dict[str, Any]:
    return {"match": match, "backlog": {"limit": limit, **more}, "over_limit": "drop"}


def commit(address: str, topic: str, group: str, offsets: dict[int, int]) -> None:
    """Commit as a consumer of that group would."""
    consumer = KafkaConsumer(bootstrap_servers=address, group_id=group, enable_auto_commit=False)
    places = {TopicPartition(topic, n): OffsetAndMetadata(o, "", -1) for n, o in offsets.items()}
    consumer.assign(list(places))
    consumer.commit(places)
    consumer.close()


# --- kafka ----------------------------------------------------------------------------------------


@pytest.fixture
def one_partition(kafka) -> str:
    return create_topic(kafka.address, 1)


def test_producers_are_limited_while_a_group_lags_and_released_when_it_has_caught_up(
    kafka, one_partition
):
    """Lag passes the limit, messages are refused; the group commits, they are admitted again."""
    topic = one_partition
    commit(kafka.address, topic, "billing", {0: 0})
    settings = {"rules": [rule(topic, group="billing")]}
    with KafkaProducer(bootstrap_servers=kafka.address, shield=settings) as producer:
        own = producer.shield

        def sent() -> bool:
            time.sleep(0.002)
            return shield.fate(producer.send(topic, b"x")) == "sent"

        assert sent()
        eventually(lambda: status(own)["age_s"] is not None)
        eventually(lambda: not sent())
        producer.flush()
        eventually(lambda: status(own)["engaged"])
        assert 200 <= own.ledger().delivered <= 260
        commit(kafka.address, topic, "billing", {0: own.ledger().delivered})
        eventually(lambda: status(own)["waiting"] < 100)
        assert sent()
        assert pollers() == 1
    assert pollers() == 0
    assert own.ledger().balanced


def test_what_kafka_does_not_know_limits_nobody_and_says_why(kafka, one_partition):
    """A group that has committed nothing; no group at all; a topic that is not there."""
    topic = one_partition
    for settings, found in (
        ({"group": "nobody"}, "the group has committed nothing of it"),
        ({}, "no group is named"),
        ({"group": "nobody", "destination": "no-such-topic"}, "UnknownTopicOrPartition"),
    ):
        one = {"rules": [rule(topic, limit=1, **settings)]}
        with KafkaProducer(bootstrap_servers=kafka.address, shield=one) as producer:
            own = producer.shield
            producer.send(topic, b"x").get(60)
            eventually(lambda own=own: status(own)["error"])
            assert found in status(own)["error"]
            assert status(own)["waiting"] is None
            assert shield.fate(producer.send(topic, b"x")) == "sent"


def test_a_topic_made_anew_counts_from_its_beginning(kafka, one_partition):
    """The group's commit is beyond the end then: all that is there waits for it."""
    topic = one_partition
    commit(kafka.address, topic, "billing", {0: 0})
    settings = {"rules": [rule(topic, limit=1000, group="billing")]}
    with KafkaProducer(bootstrap_servers=kafka.address, shield=settings) as producer:
        own = producer.shield
        for _ in range(30):
            producer.send(topic, b"x")
        producer.flush()
        commit(kafka.address, topic, "billing", {0: 30})
        eventually(lambda: status(own)["waiting"] == 0)
        commit(kafka.address, topic, "billing", {0: 5000})
        eventually(lambda: status(own)["waiting"] == 30)


def test_many_rules_and_producers_have_one_thread_and_one_reader(kafka):
    """Three rules over two topics, two producers: one thread while one of them is open."""
    topics = [create_topic(kafka.address, 1) for _ in range(2)]
    rules = [rule("*", group="a"), rule("*", group="b"), rule(topics[0], group="a")]
    own = Shield({"rules": rules})
    made = [KafkaProducer(bootstrap_servers=kafka.address, shield=own) for _ in range(2)]
    for producer in made:
        for topic in topics:
            producer.send(topic, b"x").get(60)
    assert pollers() == 1
    made[0].close()
    assert pollers() == 1
    made[1].close()
    assert pollers() == 0


def test_the_client_tells_its_own_signals(kafka, topic):
    """Latency from the wire to the answer, without the half second in the batch; nothing throttles.

    A metrics-less client tells them as well.
    """
    with KafkaProducer(
        bootstrap_servers=kafka.address, linger_ms=500, metrics_enabled=False, shield={"rules": []}
    ) as producer:
        assert producer.signals.latency.recent is None
        for _ in range(3):
            producer.send(topic, b"x").get(60)
        signals = producer.signals
        assert 0.0 < signals.latency.recent < 0.4
        assert 0.4 < signals.queue_s < 5.0
        assert signals.throttle_s == 0.0
        assert signals.requests == 0


def throttle(address: str, client_id: str, bytes_per_s: float) -> None:
    """Give a client a quota of the broker's own; kafka-python's admin has no call for that."""
    kind = AlterClientQuotasRequest.EntryData
    entity = kind.EntityData(entity_type="client-id", entity_name=client_id)
    change = kind.OpData(key="producer_byte_rate", value=bytes_per_s, remove=False)
    request = AlterClientQuotasRequest(entries=[kind(entity=[entity], ops=[change])])
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        admin._manager.run(admin._manager.send, request)


def test_a_brokers_own_quota_shows_as_throttle_time(kafka, topic):
    """Kafka answers at once and says for how long the client is to be silent (KIP-219)."""
    throttle(kafka.address, topic, 4_000.0)
    with KafkaProducer(
        bootstrap_servers=kafka.address, client_id=topic, shield={"rules": []}
    ) as producer:
        for _ in range(3):
            producer.send(topic, b"x" * 20_000).get(60)
        eventually(lambda: producer.signals.throttle_s)
        assert producer.signals.latency.recent < 1.0


def test_messages_take_the_chain_while_a_brokers_quota_throttles(kafka, topic):
    """They are dropped instead of growing in the client, and sent again when it is over."""
    throttle(kafka.address, topic, 4_000.0)
    settings = {"rules": [{"match": "*", "broker_throttle": "200ms", "over_limit": "drop"}]}
    with KafkaProducer(
        bootstrap_servers=kafka.address, client_id=topic, shield=settings
    ) as producer:

        def fate_of_another() -> str:
            future = producer.send(topic, b"x" * 20_000)
            future.get(60)
            return shield.fate(future)

        eventually(lambda: fate_of_another() == "dropped")
        assert producer.shield.pressure() == 1.0
        assert producer.shield.wait_ready(20)
        assert fate_of_another() == "sent"
        ledger = producer.shield.ledger()
    assert ledger.drops == {("rule-1", "broker_throttle", "throttled by the broker"): 1}
    assert ledger.balanced


# --- rabbitmq -------------------------------------------------------------------------------------


@pytest.fixture
def queues(rabbitmq) -> Any:
    with Queues(rabbitmq.address) as queues:
        yield queues


def test_publishers_are_limited_while_a_queue_is_long_and_released_when_it_is_drained(
    rabbitmq, queues
):
    """Depth passes the limit, messages are refused; they are taken out, and it goes on."""
    queue = queues.queue()
    with Publisher(rabbitmq.address, shield={"rules": [rule(queue)]}) as publisher:
        own = publisher.shield

        def sent() -> bool:
            time.sleep(0.002)
            return shield.fate(publisher.publish("", queue, b"x")) == "sent"

        assert sent()
        eventually(lambda: status(own)["age_s"] is not None)
        eventually(lambda: not sent())
        eventually(lambda: status(own)["engaged"])
        assert 200 <= queues.depth(queue) <= 260
        queues.take(queue)
        eventually(lambda: status(own)["waiting"] < 100)
        assert sent()
        assert pollers() == 1
    assert pollers() == 0


def test_what_rabbitmq_does_not_know_limits_nobody_and_says_why(rabbitmq, queues):
    """A queue that is not there, as where an exchange's name was taken for one: how to name it."""
    queue = queues.queue()
    exchange = queues.exchange()
    queues.channel.queue_bind(queue, exchange, "key")
    rules = [rule("*", limit=1), rule("*", limit=1000, destination=queue)]
    with Publisher(rabbitmq.address, shield={"rules": rules}) as publisher:
        own = publisher.shield
        publisher.publish(exchange, "key", b"x").result(60)
        eventually(lambda: status(own)["error"])
        assert "404" in status(own)["error"]
        assert "name the queue" in status(own)["error"]
        eventually(lambda: own.status()["rule-2"]["backlog"]["waiting"] == 1)
        assert shield.fate(publisher.publish(exchange, "key", b"x")) == "sent"
