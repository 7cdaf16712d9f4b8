"""The brokers that the other tests stand on: they work, they break as told, they leave nothing."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pika
import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError
from pika.adapters.blocking_connection import BlockingChannel
from redis import Redis

from integration.brokers import (
    ALL,
    KAFKA,
    RABBITMQ,
    REDIS,
    Broker,
    BrokerError,
    Kind,
    RabbitMQ,
    create_topic,
    private,
    shared,
)
from integration.brokers.native.debian import install_missing
from integration.brokers.native.guardian import Guardian
from integration.brokers.ready import accepts, redis_answers
from integration.brokers.sessions import require_sessions_of
from tests.eventually import GENEROUS_S, eventually

# --- each broker, in the three things that a test does with any of them -------------------------


def kafka_put(address: str, place: str, value: bytes) -> None:
    """Produce it and wait for the broker's word."""
    with KafkaProducer(bootstrap_servers=address, acks="all") as producer:
        producer.send(place, value).get(timeout=150)


def kafka_get(address: str, place: str) -> bytes | None:
    """The first message of the topic."""
    consumer = KafkaConsumer(
        place,
        bootstrap_servers=address,
        auto_offset_reset="earliest",
        group_id=None,
        consumer_timeout_ms=20_000,
    )
    with consumer:
        return next((record.value for record in consumer), None)


def rabbitmq_put(address: str, place: str, value: bytes) -> None:
    """Publish it, persistent, into the durable queue and wait for the confirm."""
    with channel(address) as publishing:
        publishing.confirm_delivery()
        publishing.basic_publish("", place, value, pika.BasicProperties(delivery_mode=2))


def rabbitmq_get(address: str, place: str) -> bytes | None:
    """The first message of the queue."""
    with channel(address) as getting:
        body: bytes | None = getting.basic_get(place)[2]
        return body


@contextmanager
def channel(address: str) -> Iterator[BlockingChannel]:
    """A channel on a connection of its own."""
    parameters = pika.URLParameters(address)
    parameters.socket_timeout = parameters.stack_timeout = 60
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection.channel()
    finally:
        connection.close()


def redis_put(address: str, place: str, value: bytes) -> None:
    """Set the key."""
    with Redis.from_url(address) as client:
        client.set(place, value)


def redis_get(address: str, place: str) -> bytes | None:
    """The key's value."""
    with Redis.from_url(address) as client:
        value = client.get(place)
        assert value is None or isinstance(value, bytes)
        return value


def kafka_place(broker: Broker) -> str:
    """A topic."""
    return create_topic(broker.address)


def rabbitmq_place(broker: Broker) -> str:
    """A durable queue."""
    name = uuid.uuid4().hex
    with channel(broker.address) as declaring:
        declaring.queue_declare(name, durable=True)
    return name


def redis_place(broker: Broker) -> str:
    """A key, which is made by what is put there."""
    return uuid.uuid4().hex


PLACE = {"kafka": kafka_place, "rabbitmq": rabbitmq_place, "redis": redis_place}
PUT = {"kafka": kafka_put, "rabbitmq": rabbitmq_put, "redis": redis_put}
GET = {"kafka": kafka_get, "rabbitmq": rabbitmq_get, "redis": redis_get}


# --- they work ----------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["kafka", "rabbitmq", "redis"])
def test_what_is_put_in_comes_out(name: str, request: pytest.FixtureRequest) -> None:
    """A message that the shared broker accepted can be read from it."""
    broker: Broker = request.getfixturevalue(name)
    place = PLACE[name](broker)
    PUT[name](broker.address, place, b"hello")
    assert GET[name](broker.address, place) == b"hello"


def test_a_topic_has_the_partitions_asked_for(
    kafka: Broker, topic: str, new_topic: Callable[[int], str]
) -> None:
    """`topic` has four partitions and `new_topic` any number, all of them usable."""
    with KafkaProducer(bootstrap_servers=kafka.address) as producer:
        assert producer.partitions_for(topic) == {0, 1, 2, 3}
        assert producer.partitions_for(new_topic(7)) == set(range(7))


def test_the_management_of_rabbitmq_answers(rabbitmq: RabbitMQ) -> None:
    """`management_url` leads to the HTTP API and holds a login for it."""
    url = urlsplit(rabbitmq.management_url)
    login = b64encode(f"{url.username}:{url.password}".encode()).decode()
    overview = f"http://{url.hostname}:{url.port}/api/overview"
    request = urllib.request.Request(overview, headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert "rabbitmq_version" in json.load(answer)


# --- they break as told -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ALL, ids=lambda kind: kind.name)
def own(request: pytest.FixtureRequest) -> Iterator[tuple[str, Broker]]:
    """A private broker of each kind, with its kind's name."""
    kind: Kind[Broker] = request.param
    with private(kind) as broker:
        yield kind.name, broker


def test_a_killed_broker_refuses_and_comes_back_with_its_data(own: tuple[str, Broker]) -> None:
    """After kill nothing listens; after restart the address is the same and no message is gone."""
    name, broker = own
    place, address = PLACE[name](broker), broker.address
    broker.save_declared()
    PUT[name](address, place, b"survivor")
    broker.kill()
    assert not listens(address)
    broker.restart()
    assert broker.address == address
    assert GET[name](address, place) == b"survivor"


def test_a_paused_broker_accepts_and_hangs_until_it_is_resumed(own: tuple[str, Broker]) -> None:
    """A request made during a pause neither fails nor ends, and ends well after it."""
    name, broker = own
    place = PLACE[name](broker)
    PUT[name](broker.address, place, b"before")
    with ThreadPoolExecutor() as pool:
        broker.pause()
        try:
            assert listens(broker.address)
            request = pool.submit(PUT[name], broker.address, place, b"during")
            with pytest.raises(TimeoutError):
                request.result(timeout=1)
        finally:
            broker.resume()
        request.result(timeout=150)


def test_a_memory_alarm_blocks_publishers_until_it_is_cleared(
    private_rabbitmq: Callable[[], RabbitMQ],
) -> None:
    """A watermark set by `ctl` blocks the connection of who publishes, and unblocks it."""
    broker = private_rabbitmq()
    connection = pika.BlockingConnection(pika.URLParameters(broker.address))
    seen: list[str] = []
    connection.add_on_connection_blocked_callback(lambda *_: seen.append("blocked"))
    connection.add_on_connection_unblocked_callback(lambda *_: seen.append("unblocked"))
    broker.ctl("set_vm_memory_high_watermark", "0.00001")
    connection.channel().basic_publish("", "nowhere", b"")
    process_events_until(connection, lambda: seen == ["blocked"])
    broker.ctl("set_vm_memory_high_watermark", "0.4")
    process_events_until(connection, lambda: seen == ["blocked", "unblocked"])
    connection.close()


@pytest.fixture(scope="module")
def strict_kafka(private_kafka: Callable[..., Broker]) -> Broker:
    """A Kafka that creates no topics, and takes no session shorter than Kafka's default."""
    return private_kafka(auto_create_topics_enable=False, group_min_session_timeout_ms=6000)


def test_kafka_takes_settings(strict_kafka: Broker) -> None:
    """A private Kafka can be told not to create topics by itself."""
    with (
        KafkaProducer(bootstrap_servers=strict_kafka.address, max_block_ms=1000) as producer,
        pytest.raises(KafkaTimeoutError, match="update metadata"),
    ):
        producer.send("not-created", b"")


def listens(address: str) -> bool:
    """Whether the broker's port takes a connection."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    return accepts(parts.hostname or "", parts.port or 0)


def process_events_until(connection: pika.BlockingConnection, done: Callable[[], bool]) -> None:
    """Let pika read until what was waited for has come."""
    deadline = time.monotonic() + GENEROUS_S
    while not done():
        assert time.monotonic() < deadline
        connection.process_data_events(time_limit=0.2)


# --- choosing a way -----------------------------------------------------------------------------


def test_an_external_broker_is_used_but_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable wins over the other ways, and faults on someone else's broker are refused."""
    monkeypatch.delenv("SHIELD_TEST_BROKERS", raising=False)
    monkeypatch.setenv("SHIELD_TEST_KAFKA", "kafka.example:9092")
    broker = shared(KAFKA)
    assert (broker.way, broker.address) == ("external", "kafka.example:9092")
    for fault in (broker.kill, broker.restart, broker.pause, broker.resume):
        with pytest.raises(BrokerError, match=r"SHIELD_TEST_KAFKA is not ours.*private"):
            fault()


def test_a_forced_way_beats_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """SHIELD_TEST_BROKERS=native means processes, even where an address is set."""
    monkeypatch.setenv("SHIELD_TEST_BROKERS", "native")
    monkeypatch.setenv("SHIELD_TEST_AMQP", "amqp://rabbitmq.example")
    assert shared(RABBITMQ).way == "native"


def test_an_unknown_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt SHIELD_TEST_BROKERS says what it may be."""
    monkeypatch.setenv("SHIELD_TEST_BROKERS", "podman")
    with pytest.raises(BrokerError, match="'podman': allowed are 'docker', 'native' or nothing"):
        private(REDIS)


def test_what_is_missing_is_named_with_all_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root is told what to install, and what does instead."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BrokerError) as caught:
        install_missing({"no-such-program": "some-package"}, instead="SHIELD_TEST_REDIS")
    for way_out in ("apt-get install some-package", "Docker", "SHIELD_TEST_REDIS"):
        assert way_out in str(caught.value)


def test_sessions_that_are_too_short_for_a_kafka_are_refused_with_what_to_set(
    strict_kafka: Broker,
) -> None:
    """As where an external one has Kafka's default, and a test kills a member of a group."""
    require_sessions_of(6000, strict_kafka.address)
    with pytest.raises(BrokerError, match=r"group\.min\.session\.timeout\.ms=3000 or less"):
        require_sessions_of(3000, strict_kafka.address)


# --- make brokers -------------------------------------------------------------------------------


def test_the_command_prints_what_a_shell_needs_and_stops_on_ctrl_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`make brokers`: a line to export, a broker that answers there, nothing of it afterwards."""
    command = [sys.executable, "-m", "integration.brokers", "redis"]
    monkeypatch.delenv("SHIELD_TEST_REDIS", raising=False)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as brokers:
        guardian = Guardian("kill", "-INT", str(brokers.pid))
        try:
            assert brokers.stdout
            line = brokers.stdout.readline().decode()
            export, _, address = line.strip().partition("=")
            assert export == "export SHIELD_TEST_REDIS"
            assert redis_answers(address)
            brokers.send_signal(signal.SIGINT)
            brokers.communicate(timeout=150)
        finally:
            brokers.kill()  # nothing, where it has ended; else its own guardian ends the broker
            guardian.dismiss()
    assert brokers.returncode == 0
    assert not listens(address)


def test_a_broker_that_nobody_knows_is_refused() -> None:
    """With status 2, and those that there are."""
    command = [sys.executable, "-m", "integration.brokers", "kafak"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "unknown broker kafak: choose from kafka, rabbitmq, redis" in run.stderr


# --- they leave nothing -------------------------------------------------------------------------

OWNER = """
import time
from integration.brokers.native import NativeRedis
redis = NativeRedis()
redis.start()
redis.pause()
print(redis.process.pid, redis.folder, flush=True)
time.sleep(60)
"""
WITH_A_CHILD = OWNER.replace("time.sleep", "os.fork(); time.sleep").replace(
    "import time", "import os, time"
)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
def test_a_native_broker_does_not_outlive_its_owner(number: signal.Signals) -> None:
    """However the owner ends, a broker it left behind, frozen even, goes, and its folder too."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with owner:
        assert owner.stdout
        pid, folder = owner.stdout.readline().split()
        owner.send_signal(number)
    eventually(lambda: not (psutil.pid_exists(int(pid)) or Path(folder).exists()))


def test_a_forked_child_that_hangs_keeps_no_broker_alive() -> None:
    """Neither process nor folder: the child has a copy of all that its parent had open."""
    owner = subprocess.Popen(
        [sys.executable, "-c", WITH_A_CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert owner.stdout
        pid, folder = owner.stdout.readline().split()
        eventually(lambda: psutil.Process(owner.pid).children())
        owner.kill()
        eventually(lambda: not (psutil.pid_exists(int(pid)) or Path(folder).exists()))
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.communicate()
