"""The policy `backlog` where a real broker does not tell, tells late, or tells of a jump."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.structs import OffsetAndMetadata

import shield
from integration.brokers import create_topic
from integration.brokers.ports import free_ports
from integration.queues import Queues
from integration.test_backlog import commit, rule, status
from shield import Event, Kind, Shield, hookimpl
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher
from tests.eventually import eventually


class Observer:
    """Keeps what observers are told of backlogs."""

    def __init__(self) -> None:
        self.events: list[tuple[Kind, str | None]] = []

    @hookimpl
    def shield_on_event(self, event: Event) -> None:
        if event.kind in (Kind.BACKLOG_UNKNOWN, Kind.BACKLOG_KNOWN):
            self.events.append((event.kind, event.detail))


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def queues(rabbitmq) -> Iterator[Queues]:
    with Queues(rabbitmq.address) as queues:
        yield queues


def put(management_url: str, path: str, body: dict[str, str]) -> None:
    """Change something by RabbitMQ's management API."""
    url = urlsplit(management_url)
    manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    manager.add_password(None, f"http://{url.hostname}:{url.port}", url.username, url.password)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
    request = urllib.request.Request(
        f"http://{url.hostname}:{url.port}/api/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="PUT",
    )
    opener.open(request, timeout=10).close()


def publish_until(publisher: Publisher, queue: str, is_so: Callable[[], object]) -> None:
    def look() -> object:
        publisher.publish("", queue, b"x").result(60)
        return is_so()

    eventually(look)


# --- rabbitmq's management api --------------------------------------------------------------------


def test_the_management_api_counts_what_is_handed_out_as_well(rabbitmq, queues):
    """Five of ten are with a consumer: its own channel would tell of five, the API of ten."""
    queue = queues.queue()
    table = {"match": queue, "over_limit": "drop"}
    table["backlog"] = [
        {"limit": 1000, "management": rabbitmq.management_url},
        {"limit": 1000},
    ]
    with Publisher(rabbitmq.address, shield={"rules": [table]}) as publisher:
        for _ in range(10):
            publisher.publish("", queue, b"x").result(60)
        for _ in range(5):
            queues.channel.basic_get(queue)
        found = publisher.shield.status
        eventually(lambda: found()["rule-1"]["backlog"]["waiting"] == 10)
        eventually(lambda: found()["rule-1"]["backlog[1]"]["waiting"] == 5)


def test_a_publisher_is_limited_by_what_the_management_api_tells(rabbitmq, queues):
    """In its own name, where the URL has none; as one reading is late, so is the refusal."""
    queue = queues.queue()
    url = urlsplit(rabbitmq.management_url)
    bare = f"http://{url.hostname}:{url.port}"
    with Publisher(
        rabbitmq.address, shield={"rules": [rule(queue, limit=20, management=bare)]}
    ) as publisher:
        for _ in range(30):
            publisher.publish("", queue, b"x")
        publisher.flush(10)
        eventually(lambda: status(publisher.shield)["engaged"])
        assert shield.fate(publisher.publish("", queue, b"x")) == "dropped"
        queues.take(queue)
        eventually(lambda: shield.fate(publisher.publish("", queue, b"x")) == "sent")


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda url: f"http://{url.username}:canary@{url.hostname}:{url.port}", "401"),
        (lambda url: f"http://u:canary@127.0.0.1:{free_ports(1)[0]}", "no answer from"),
        (lambda url: f"http://u:canary@{url.hostname}:{url.port}/js/tmpl", "40"),
    ],
)
def test_a_management_api_that_is_wrong_or_gone_limits_nobody_and_says_why(
    rabbitmq, queues, observer, caplog, broken, says
):
    """In status, log and an event, without a password; another rule's reading goes on."""
    queue = queues.queue()
    wrong = broken(urlsplit(rabbitmq.management_url))
    rules = [rule(queue, limit=1, management=wrong), rule(queue, limit=1000)]
    own = Shield({"rules": rules}, plugins=[observer])
    with Publisher(rabbitmq.address, shield=own) as publisher:
        publish_until(publisher, queue, lambda: status(own)["error"])
        assert says in status(own)["error"]
        assert status(own)["waiting"] is None
        assert shield.fate(publisher.publish("", queue, b"x")) == "sent"
        eventually(lambda: own.status()["rule-2"]["backlog"]["waiting"])
    assert [kind for kind, _ in observer.events] == [Kind.BACKLOG_UNKNOWN]
    assert says in observer.events[0][1]
    assert "canary" not in caplog.text + repr(own.status()) + repr(observer.events)


def test_a_queue_that_the_management_api_does_not_know_may_come_yet(rabbitmq, queues, observer):
    """A 404 while it is not there; then it is known, and observers hear of both."""
    queue, late = queues.queue(), f"late-{time.monotonic_ns()}"
    table = rule(queue, destination=late, management=rabbitmq.management_url)
    own = Shield({"rules": [table]}, plugins=[observer])
    with Publisher(rabbitmq.address, shield=own) as publisher:
        publish_until(publisher, queue, lambda: status(own)["error"])
        assert "404" in status(own)["error"]
        queues.channel.queue_declare(late, durable=True)
        queues.channel.basic_publish("", late, b"x")
        eventually(lambda: status(own)["waiting"] == 1)
        queues.channel.queue_delete(late)
    kinds = [kind for kind, _ in observer.events]
    assert (kinds[0], kinds[-1]) == (Kind.BACKLOG_UNKNOWN, Kind.BACKLOG_KNOWN)


# --- rights ---------------------------------------------------------------------------------------


def test_a_user_that_may_not_use_the_management_api_limits_nobody_and_says_why(
    rabbitmq, queues, observer
):
    """It wants a tag of the user; by a passive declare RabbitMQ tells whoever may publish there."""
    queue, name = queues.queue(), f"user-{time.monotonic_ns()}"
    put(rabbitmq.management_url, f"users/{name}", {"password": "p", "tags": ""})
    rights = {"configure": "^$", "write": ".*", "read": "^$"}
    vhost = urlsplit(rabbitmq.address).path.removeprefix("/")
    put(rabbitmq.management_url, f"permissions/{vhost}/{name}", rights)
    url, api = urlsplit(rabbitmq.address), urlsplit(rabbitmq.management_url)
    table = {"match": queue, "over_limit": "drop"}
    table["backlog"] = [
        {"limit": 1000},
        {"limit": 1, "management": f"http://{api.hostname}:{api.port}"},
    ]
    own = Shield({"rules": [table]}, plugins=[observer])
    address = f"amqp://{name}:p@{url.hostname}:{url.port}{url.path}"
    with Publisher(address, shield=own) as publisher:
        publisher.publish("", queue, b"x").result(60)
        found = own.status
        eventually(lambda: found()["rule-1"]["backlog[1]"]["error"])
        assert "401" in found()["rule-1"]["backlog[1]"]["error"]
        assert "management or monitoring" in found()["rule-1"]["backlog[1]"]["error"]
        eventually(lambda: found()["rule-1"]["backlog"]["waiting"] == 1)
        assert shield.fate(publisher.publish("", queue, b"x")) == "sent"
    assert len(observer.events) == 1


def test_a_group_that_may_not_be_described_limits_nobody_and_says_why(private_kafka, observer):
    """Kafka's authorizer denies it; once it does not any more, the lag is known."""
    broker = private_kafka(
        authorizer_class_name="org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        allow_everyone_if_no_acl_found=True,
    )
    topic = create_topic(broker.address, 1)
    commit(broker.address, topic, "secret", {0: 0})
    denied = ACL(
        principal="User:ANONYMOUS",
        host="*",
        operation=ACLOperation.DESCRIBE,
        permission_type=ACLPermissionType.DENY,
        resource_pattern=ResourcePattern(ResourceType.GROUP, "secret"),
    )
    own = Shield({"rules": [rule(topic, limit=2, group="secret")]}, plugins=[observer])
    with (
        KafkaAdminClient(bootstrap_servers=broker.address) as admin,
        KafkaProducer(bootstrap_servers=broker.address, shield=own) as producer,
    ):
        admin.create_acls([denied])
        for _ in range(5):
            producer.send(topic, b"x").get(60)
        eventually(lambda: status(own)["error"])
        assert "GroupAuthorizationFailed" in status(own)["error"]
        assert shield.fate(producer.send(topic, b"x")) == "sent"
        admin.delete_acls([denied])
        eventually(lambda: status(own)["engaged"])
    assert [kind for kind, _ in observer.events] == [Kind.BACKLOG_UNKNOWN, Kind.BACKLOG_KNOWN]
    assert own.ledger().balanced


# --- time and jumps -------------------------------------------------------------------------------


def test_a_topic_that_is_deleted_and_made_anew_is_unknown_and_then_counts_anew(kafka, observer):
    """The old commit is beyond its end, and goes with the topic; nothing hangs or divides."""
    topic = create_topic(kafka.address, 1)
    commit(kafka.address, topic, "billing", {0: 0})
    own = Shield({"rules": [rule(topic, limit=1000, group="billing")]}, plugins=[observer])
    with (
        KafkaAdminClient(bootstrap_servers=kafka.address) as admin,
        KafkaProducer(bootstrap_servers=kafka.address, shield=own) as producer,
    ):
        for _ in range(30):
            producer.send(topic, b"x").get(60)
        eventually(lambda: status(own)["waiting"] == 30)
        admin.delete_topics([topic])
        eventually(lambda: status(own)["error"])
        assert status(own)["waiting"] is not None  # carried on for a while, with its age
        admin.create_topics(
            {topic: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True
        )
        commit(kafka.address, topic, "billing", {0: 0})
        eventually(lambda: status(own)["error"] is None)
        eventually(lambda: status(own)["waiting"] < 30)
    kinds = [kind for kind, _ in observer.events]
    assert (kinds[0], kinds[-1]) == (Kind.BACKLOG_UNKNOWN, Kind.BACKLOG_KNOWN)


def test_a_group_that_lags_limits_once_and_does_not_flap(kafka):
    """Twelve seconds at three times what its consumer does: engaged once, bounded from then on.

    The consumer commits what it has done four times a second, a quarter of what is between limit
    and release. `tests/test_backlog.py` simulates two minutes of it.
    """
    limit, done_per_s, offered_per_s, seconds = 1000, 200, 600, 12
    topic = create_topic(kafka.address, 1)
    commit(kafka.address, topic, "slow", {0: 0})
    stop = threading.Event()
    settings = {"rules": [rule(topic, limit=limit, group="slow")]}
    with KafkaProducer(bootstrap_servers=kafka.address, shield=settings) as producer:
        own = producer.shield

        def consume() -> None:
            place, done, begun = TopicPartition(topic, 0), 0, time.monotonic()
            with closing(
                KafkaConsumer(bootstrap_servers=kafka.address, group_id="slow")
            ) as consumer:
                consumer.assign([place])
                while not stop.wait(0.25):
                    could = int((time.monotonic() - begun) * done_per_s)
                    done = min(could, own.ledger().delivered)
                    consumer.commit({place: OffsetAndMetadata(done, "", -1)})

        consumer = threading.Thread(target=consume)
        consumer.start()
        seen: list[tuple[int, float]] = []
        begun = time.monotonic()
        try:
            for number in range(seconds * offered_per_s):
                producer.send(topic, b"x")
                if number % 60 == 0:
                    found: dict[str, Any] = status(own)
                    seen.append((found.get("engaged", 0), found["waiting"] or 0.0))
                time.sleep(max(0.0, begun + number / offered_per_s - time.monotonic()))
        finally:
            stop.set()
            consumer.join()
        ledger = own.ledger()
    engaged = [each for each, _ in seen]
    assert engaged[-1] == 1
    assert sum(a != b for a, b in pairwise(engaged)) == 1
    assert max(waiting for _, waiting in seen) < 1.2 * limit
    assert ledger.dropped > 1000
    assert ledger.balanced
