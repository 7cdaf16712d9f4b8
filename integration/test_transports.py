"""Messages that go to another broker, and back, on real ones."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from pika import BasicProperties

import shield
from integration.brokers import Broker, RabbitMQ, create_topic
from integration.queues import Queues
from integration.reading import count, read
from shield import URL, Envelope, Shield
from shield.config.registry import Registry
from shield.headers import ATTEMPT, MESSAGE_ID
from shield.redriving.filter import without_broker
from shield.redriving.worker import Redriver
from shield.testing import AdmitNothing, TransportContract
from shield_kafka import KafkaProducer
from shield_rabbitmq import Publisher
from shield_rabbitmq.client.envelopes import frames_of

PATIENCE_S = 60.0


def kafka_url(address: str, topic: str) -> str:
    return f"kafka://{address}/{topic}"


def amqp_url(address: str, *names: str) -> str:
    """The URL of a name on the broker at that address, in its default virtual host."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}//{'/'.join(names)}"


class TestKafkaTransport(TransportContract):
    """A topic with one partition."""

    @pytest.fixture(autouse=True)
    def _broker(self, kafka, new_topic):
        self.new = lambda: kafka_url(kafka.address, new_topic(1))

    def place(self):
        return self.new()


class TestAmqpTransport(TransportContract):
    """A queue, by way of the default exchange."""

    @pytest.fixture(autouse=True)
    def _broker(self, rabbitmq):
        with Queues(rabbitmq.address) as queues:
            self.queues, self.address = queues, rabbitmq.address
            yield

    def place(self):
        self.queue = self.queues.queue()
        return amqp_url(self.address, "", self.queue)

    def _open(self, place):
        return super()._open(place.replace("///", "//"))


# --- from one broker to another -----------------------------------------------------------------


@pytest.fixture
def queues(rabbitmq: RabbitMQ) -> Iterator[Queues]:
    with Queues(rabbitmq.address) as queues:
        yield queues


def shield_to(*chain: object) -> Shield:
    """Nothing is admitted: all goes down the chain."""
    rule = {
        "name": "all",
        "match": "*",
        "admit_nothing": {},
        "over_limit": list(chain) or ["raise"],
    }
    return Shield({"rules": [rule]}, plugins=[AdmitNothing])


def read_back(url: str, number: int) -> list[Envelope]:
    """Take so many messages from there, as they were before, and leave the place empty."""
    parsed = URL.parse(url)
    source = Registry().transport(parsed.scheme).source(parsed)
    found: list[Envelope] = []
    deadline = time.monotonic() + PATIENCE_S
    try:
        while len(found) < number and time.monotonic() < deadline:
            for taken in source.take(100, 0.2):
                found.append(taken.envelope.restored())
                source.forget(taken)
    finally:
        source.close()
    return found


@pytest.mark.smoke
def test_a_kafka_producer_overflows_into_rabbitmq(kafka, topic, queues):
    """Key, headers that are there twice, bytes that are no text, timestamp: all come back."""
    exchange = queues.exchange("fanout")
    queue = queues.queue(exchange)
    own = shield_to(f"overflow {amqp_url(queues.url, exchange)}")
    headers = [("a", b"1"), ("bin", b"\xff\x00"), ("a", b"2")]
    producer = KafkaProducer(bootstrap_servers=kafka.address, shield=own)
    try:
        future = producer.send(topic, b"\x00\xffbody", b"\xfe", headers, 3, 1234567890123)
        assert future.get(PATIENCE_S).offset == -1
        assert shield.fate(future) == "overflowed"
        producer.send(topic, None, b"tombstone")
        producer.flush(PATIENCE_S)
        assert own.ledger().overflowed == 2
    finally:
        producer.close()
    first, second = read_back(amqp_url(queues.url, queue), 2)
    assert (first.destination, first.kind) == (topic, "kafka")
    assert (first.body, first.key, first.timestamp_ms) == (b"\x00\xffbody", b"\xfe", 1234567890123)
    assert first.headers == tuple(headers)
    assert (second.body, second.key) == (None, b"tombstone")
    assert queues.depth(queue) == 0


@pytest.mark.smoke
def test_a_rabbitmq_publisher_overflows_into_kafka(kafka, topic, queues):
    """Exchange, routing key and all properties come back, also CC and expiration."""
    exchange = queues.exchange("fanout")
    own = shield_to(f"overflow {kafka_url(kafka.address, topic)}")
    given = {"CC": ["other"], "n": 5, "bin": b"\xff", "t": {"deep": [1, None, "x"]}}
    properties = BasicProperties(
        delivery_mode=2, expiration="60000", priority=7, headers=given, timestamp=1_700_000_000
    )
    with Publisher(queues.url, shield=own) as publisher:
        future = publisher.publish(exchange, "key.1", b"\xff\x00", properties)
        future.result(PATIENCE_S)
        assert shield.fate(future) == "overflowed"
    (record,) = read(kafka.address, topic)
    assert dict(record.headers)["shield-original-destination"] == f"{exchange}/key.1".encode()
    (back,) = read_back(kafka_url(kafka.address, topic), 1)
    assert (back.exchange, back.routing_key, back.body) == (exchange, "key.1", b"\xff\x00")
    assert sent_again(back, 60_000) == properties


def sent_again(envelope: Envelope, most_ms: int) -> BasicProperties:
    """What it is published with; its time to live has begun to run."""
    sent = BasicProperties()
    sent.decode(b"".join(frames_of(without_broker(envelope)).properties.encode()))
    assert 0 < int(sent.expiration) <= most_ms
    sent.expiration = str(most_ms)
    assert {sent.headers.pop(name) for name in (MESSAGE_ID, ATTEMPT)} == {envelope.id, "1"}
    return sent


def test_what_goes_from_one_rabbitmq_to_another_is_not_routed_or_expired_there(queues):
    """CC and expiration are taken off, and are back when it is."""
    overflow, cc = queues.exchange("fanout"), queues.queue()
    queue = queues.queue(overflow)
    own = shield_to(f"overflow {amqp_url(queues.url, overflow, 'key')}")
    given = {"CC": [cc], "BCC": [cc], "n": 1}
    properties = BasicProperties(expiration="20000", headers=given)
    with Publisher(queues.url, shield=own) as publisher:
        publisher.publish("", "nowhere", b"body", properties).result(PATIENCE_S)
    assert queues.depth(cc) == 0
    method, stored, _ = queues.channel.basic_get(queue)
    assert stored.expiration is None
    queues.channel.basic_nack(method.delivery_tag)
    (back,) = read_back(amqp_url(queues.url, queue), 1)
    assert sent_again(back, 20_000) == properties
    assert (back.exchange, back.routing_key) == ("", "nowhere")


def test_both_overflow_into_a_file(kafka, topic, queues, tmp_path):
    """One file for messages of both; each comes back as it was."""
    url = f"file://{tmp_path}/overflow.jsonl"
    own = shield_to(f"overflow {url}")
    producer = KafkaProducer(bootstrap_servers=kafka.address, shield=own)
    producer.send(topic, b"\xff", b"key", [("h", b"\xff")], None, 5).get(PATIENCE_S)
    producer.close()
    properties = BasicProperties(headers={"n": 5}, message_id="m")
    with Publisher(queues.url, shield=own) as publisher:
        publisher.publish("ex", "key", "text", properties).result(PATIENCE_S)
    first, second = read_back(url, 2)
    assert (first.destination, first.body, first.key) == (topic, b"\xff", b"key")
    assert (first.headers, first.timestamp_ms) == ((("h", b"\xff"),), 5)
    restored = BasicProperties()
    restored.decode(second.native)
    assert restored == properties
    assert (second.exchange, second.routing_key, second.body) == ("ex", "key", b"text")


# --- the other broker does not take them ----------------------------------------------------------


@pytest.fixture
def refusing() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(("scheme", "kind"), [("kafka", "refusing"), ("amqp", "silent")])
def test_where_the_other_broker_is_away_the_chain_goes_on(
    scheme, kind, kafka, topic, request, caplog
):
    """No caller is kept; each message is in the next place within seconds; no secret is told."""
    address = request.getfixturevalue(kind)
    path = "topic?security_protocol=SASL_PLAINTEXT" if scheme == "kafka" else "/exchange"
    url = f"{scheme}://bob:canary@{address}/{path}"
    own = shield_to(f"overflow {url}", f"overflow {topic}", "raise")
    with caplog.at_level("DEBUG"):
        producer = KafkaProducer(bootstrap_servers=kafka.address, shield=own)
        producer.partitions_for(topic)
        futures, longest_s, until = [], 0.0, time.monotonic() + 1
        while time.monotonic() < until:
            began = time.monotonic()
            futures.append(producer.send("orders", b"body"))
            longest_s = max(longest_s, time.monotonic() - began)
            time.sleep(0.005)
        metadata = [future.get(12) for future in futures]
        began = time.monotonic()
        late = [producer.send("orders", b"body") for _ in range(100)]
        producer.close()
    assert {m.topic for m in metadata} == {topic}
    assert longest_s < 2.5
    assert {shield.fate(future) for future in late} == {"overflowed"}
    assert count(kafka.address, topic) == own.ledger().overflowed == len(futures) + 100
    assert own.ledger().balanced
    assert "canary" not in caplog.text
    own.rules[0].transport.__self__.close(5.0)


@pytest.mark.parametrize("scheme", ["kafka", "amqp"])
def test_a_login_that_is_refused_tells_no_secret(scheme, kafka, rabbitmq, caplog):
    """Neither the error nor any log, of ours or of the client's, has the password."""
    host = kafka.address if scheme == "kafka" else urlsplit(rabbitmq.address).netloc.split("@")[-1]
    path = "topic?security_protocol=SASL_PLAINTEXT" if scheme == "kafka" else "/exchange"
    url = URL.parse(f"{scheme}://bob:canary@{host}/{path}")
    transport = Registry().transport(scheme).to(url)
    errors: list[Exception | None] = []
    ended = threading.Event()
    with caplog.at_level("DEBUG"):
        for _ in range(3):
            transport.send(
                Envelope("t", b"", "kafka"), lambda error: (errors.append(error), ended.set())
            )
        assert ended.wait(PATIENCE_S)
        transport.close(5.0)
    assert len(errors) == 3
    assert all(isinstance(error, Exception) for error in errors)
    text = caplog.text + "".join(f"{error!r} {error} {error.__cause__!r}" for error in errors)
    assert "canary" not in text


@pytest.mark.parametrize("scheme", ["kafka", "amqp"])
def test_a_place_that_is_not_there_is_passed(scheme, private_kafka_without_topics, queues):
    """A topic on a broker that makes none, an exchange: the chain goes on, others are not held."""
    if scheme == "kafka":
        url = kafka_url(private_kafka_without_topics.address, "missing")
    else:
        url = amqp_url(queues.url, "missing-exchange")
    own = shield_to(f"overflow {url}", "drop")
    with Publisher(queues.url, shield=own) as publisher:
        first = publisher.publish("", "queue", b"body")
        first.result(PATIENCE_S)
        began = time.monotonic()
        later = [publisher.publish("", "queue", b"body") for _ in range(200)]
        assert time.monotonic() - began < 5
        for future in later:
            future.result(PATIENCE_S)
    assert {shield.fate(future) for future in (first, *later)} == {"dropped"}
    assert own.ledger().dropped == 201
    own.rules[0].transport.__self__.close(5.0)


@pytest.fixture(scope="module")
def private_kafka_without_topics(private_kafka: Callable[..., Broker]) -> Broker:
    return private_kafka(auto_create_topics_enable=False)


# --- broker A is down -----------------------------------------------------------------------------


def test_while_broker_a_is_away_b_takes_what_is_over_the_bound(kafka, private_kafka_without_topics):
    """A frozen Kafka fills the bound, the rest is on another one, and comes back: none is lost."""
    broken = private_kafka_without_topics
    topic, overflow = create_topic(broken.address), create_topic(kafka.address)
    rule = {
        "match": "*",
        "in_flight": {"messages": 500},
        "over_limit": [f"overflow {kafka_url(kafka.address, overflow)}", "raise"],
    }
    producer = KafkaProducer(bootstrap_servers=broken.address, shield={"rules": [rule]})
    own, offered = producer.shield, 0
    try:
        for number in range(200):
            producer.send(topic, b"%d" % number, b"%d" % (number % 7)).get(PATIENCE_S)
        broken.pause()
        try:
            for number in range(200, 3200):
                producer.send(topic, b"%d" % number, b"%d" % (number % 7))
                assert own.ledger().balanced
            offered = 3200
            deadline = time.monotonic() + PATIENCE_S
            while own.ledger().overflowed < 2500 and time.monotonic() < deadline:
                time.sleep(0.05)
            ledger = own.ledger()
            assert (ledger.overflowed, ledger.in_flight) == (2500, 500)
        finally:
            broken.resume()
        producer.flush(PATIENCE_S)
        ledger = own.ledger()
        assert (ledger.offered, ledger.delivered, ledger.overflowed) == (offered, 700, 2500)
        _bring_back(kafka_url(kafka.address, overflow), own, producer)
    finally:
        producer.close(PATIENCE_S)
    bodies = Counter(record.value for record in read(broken.address, topic))
    assert set(bodies) == {b"%d" % number for number in range(offered)}
    assert own.ledger().balanced


def _bring_back(url: str, own: Shield, producer: Any) -> None:
    """Redrive all that is there through the producer's own rules."""
    parsed = URL.parse(url)
    source = _Restoring(Registry().transport("kafka").source(parsed))
    redriver = Redriver(source, producer._transport, own.admit)
    redriver.run(ended=lambda: source.left() == 0)
    source.close()
    assert redriver.progress.failed == 0


class _Restoring:
    """A source whose messages are as they were before they were diverted."""

    def __init__(self, source: shield.Source) -> None:
        self._source = source

    def take(self, most: int, timeout_s: float) -> list[shield.Taken]:
        taken = self._source.take(most, timeout_s)
        return [shield.Taken(one.envelope.restored(), one.position) for one in taken]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


# --- processes ------------------------------------------------------------------------------------

SCRIPT = """
import logging, os, sys
from shield import Shield
from shield.testing import AdmitNothing, FakeClient
logging.getLogger("shield.refusals").setLevel("ERROR")  # that it refuses is what is meant
rule = {"match": "*", "admit_nothing": {}, "over_limit": f"overflow {sys.argv[1]}"}
shield = Shield({"rules": [rule]}, plugins=[AdmitNothing])
client = FakeClient(shield)
client.publish("orders", b"before").result(60)
child = os.fork()
for number in range(300):
    client.publish("orders", b"%d" % number)
if child == 0:
    shield.engine.flush(client.transport, 20)
    print(shield.ledger().overflowed, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("scheme", ["kafka", "amqp"])
def test_a_process_that_forks_and_ends_sends_all(scheme, kafka, topic, queues):
    """The child through a connection of its own; the parent without a flush or a close."""
    queue = queues.queue()
    place = {"kafka": kafka_url(kafka.address, topic), "amqp": amqp_url(queues.url, "", queue)}
    command = [sys.executable, "-c", SCRIPT, place[scheme]]
    run = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert (run.returncode, run.stdout, run.stderr) == (0, "300\n", "")
    if scheme == "kafka":
        assert count(kafka.address, topic) == 601
    else:
        assert queues.depth(queue) == 601


def test_a_rebalance_in_the_middle_loses_nothing(kafka, new_topic):
    """Two processes share a topic for a while: together they read all, and one commits for both."""
    url = URL.parse(kafka_url(kafka.address, new_topic(4)))
    transport, number = Registry().transport("kafka").to(url), 3000
    ended = threading.Semaphore(0)
    for n in range(number):
        transport.send(Envelope("t", b"%d" % n, "kafka", b"%d" % n), lambda _: ended.release())
    assert all(ended.acquire(timeout=PATIENCE_S) for _ in range(number))
    transport.close(PATIENCE_S)
    first = Registry().transport("kafka").source(url)
    bodies = _forget_some(first, 500)
    second = Registry().transport("kafka").source(url)
    bodies |= _forget_some(second, 100) | _forget_some(first, 100)
    second.close()
    deadline = time.monotonic() + PATIENCE_S
    while first.left() != 0 and time.monotonic() < deadline:
        bodies |= _forget_some(first, 1)
    first.close()
    assert len(bodies) == number
    third = Registry().transport("kafka").source(url)
    assert third.take(1, 3.0) == []
    third.close()


def _forget_some(source: shield.Source, number: int) -> set[bytes | None]:
    """Take at least so many, if there are any in time, and forget them."""
    found: set[bytes | None] = set()
    deadline = time.monotonic() + 5
    while len(found) < number and time.monotonic() < deadline:
        for taken in source.take(100, 0.2):
            found.add(taken.envelope.body)
            source.forget(taken)
    return found
