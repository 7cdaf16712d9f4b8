"""Dead letters of RabbitMQ, Spring, Connect and others come back to where they were going."""

from __future__ import annotations

import struct
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import kafka as client
import pika
import pytest

from integration.queues import Queues
from integration.reading import read
from integration.redriving import run
from integration.test_transports import amqp_url

MESSAGES = 20
TIME_MS = int(time.time() * 1000) - 3_600_000


@pytest.fixture
def queues(rabbitmq: Any) -> Iterator[Queues]:
    """Queues on the broker."""
    with Queues(rabbitmq.address) as queues:
        yield queues


@pytest.fixture
def covering(tmp_path: Any) -> Callable[[str], dict[str, str]]:
    """An environment whose settings cover a destination: messages may go back there."""

    def environment(match: str) -> dict[str, str]:
        file = tmp_path / "shield.toml"
        file.write_text(f'[[rules]]\nmatch = "{match}"\nquota = "10000/s"\nover_limit = "raise"\n')
        return {"SHIELD_CONFIG": str(file)}

    return environment


def dead_lettered(queues: Queues, dead: str, reason: str, **more: Any) -> tuple[str, str]:
    """Have messages die in a queue; return the exchange and the key they were published with."""
    name = f"dead-{uuid.uuid4().hex[:12]}"
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, **more}
    queues.channel.exchange_declare(name, "direct", durable=True)
    queues.channel.queue_declare(name, durable=True, arguments=arguments)
    queues.channel.queue_bind(name, name, "created")
    queues.channel.confirm_delivery()
    for number in range(MESSAGES):
        properties = pika.BasicProperties(headers={"own": str(number)}, delivery_mode=2)
        queues.channel.basic_publish(name, "created", b"%d" % number, properties)
    if reason == "rejected":
        for _ in range(MESSAGES):
            method, _, _ = queues.channel.basic_get(name)
            queues.channel.basic_reject(method.delivery_tag, requeue=False)
    return name, "created"


def until_there(queues: Queues, queue: str, messages: int) -> None:
    """Wait until a queue holds so many."""
    for _ in range(400):
        if queues.depth(queue) >= messages:
            return
        queues.channel.connection.sleep(0.05)
    raise AssertionError(queues.depth(queue))


@pytest.mark.parametrize("reason", ["rejected", "expired"])
def test_what_rabbitmq_dead_lettered_goes_back_to_its_exchange(
    rabbitmq: Any, queues: Queues, covering: Any, reason: str
) -> None:
    """By `x-death`, which is not sent on; the user's headers are as they were."""
    dead = queues.queue()
    more = {"x-message-ttl": 100} if reason == "expired" else {}
    exchange, key = dead_lettered(queues, dead, reason, **more)
    until_there(queues, dead, MESSAGES)
    queues.channel.queue_delete(exchange)  # the queue in which they die, of the same name
    again = queues.queue(exchange, key)
    done = run(amqp_url(rabbitmq.address, dead), **covering(f"{exchange}/*"))
    assert (done["sent"], done["unknown"]) == (MESSAGES, 0)
    back = queues.take(again)
    assert [stored.body for stored in back] == [b"%d" % number for number in range(MESSAGES)]
    assert [dict(stored.properties.headers) for stored in back] == [
        {"own": str(number)} for number in range(MESSAGES)
    ]
    queues.channel.exchange_delete(exchange)


SPRING = [
    ("kafka_dlt-original-partition", struct.pack(">i", 1)),
    ("kafka_dlt-original-offset", struct.pack(">q", 7)),
    ("kafka_dlt-original-timestamp", struct.pack(">q", TIME_MS)),
    ("kafka_dlt-exception-message", b"no"),
]
KINDS = {
    "spring": ("kafka_dlt-original-topic", SPRING),
    "connect": ("__connect.errors.topic", [("__connect.errors.partition", b"1")]),
    "streams": ("__streams.errors.topic", [("__streams.errors.exception", b"E")]),
    "share group": ("__dlq.errors.topic", [("__dlq.errors.delivery.count", b"5")]),
    "named": ("came-from", []),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_others_set_aside_on_kafka_goes_back_to_its_topic(
    kafka: Any, new_topic: Any, covering: Any, kind: str
) -> None:
    """Key, body and the user's headers as they were; Spring's time, too."""
    dead, original = new_topic(1), new_topic(2)
    name, more = KINDS[kind]
    producer = client.KafkaProducer(bootstrap_servers=kafka.address)
    for number in range(MESSAGES):
        headers = [("own", b"1"), (name, original.encode()), *more]
        producer.send(dead, b"%d" % number, key=b"%d" % number, headers=headers)
    producer.send(dead, b"says nothing", headers=[("own", b"1")])
    producer.flush()
    producer.close()
    options = ["--origin-header", name] if kind == "named" else []
    done = run(f"kafka://{kafka.address}/{dead}", *options, status=1, **covering(original))
    assert (done["sent"], done["unknown"]) == (MESSAGES, 1)
    back = read(kafka.address, original)
    assert {(r.key, r.value) for r in back} == {(b"%d" % n, b"%d" % n) for n in range(MESSAGES)}
    own = [("own", b"1")] if kind != "named" else [("own", b"1"), (name, original.encode())]
    for record in back:
        assert [pair for pair in record.headers if not pair[0].startswith("shield-")] == own
        if kind == "spring":
            assert (record.timestamp, record.partition) == (TIME_MS, 1)


def test_a_dead_letter_does_not_choose_another_broker_or_a_file(kafka: Any, new_topic: Any) -> None:
    """What is no topic's name says nothing: it stays."""
    dead = new_topic(1)
    producer = client.KafkaProducer(bootstrap_servers=kafka.address)
    for topic in (b"file:///tmp/x", b"kafka://elsewhere/t", b"${HOME}", b"\xff\xfe"):
        producer.send(dead, b"body", headers=[("kafka_dlt-original-topic", topic)])
    producer.flush()
    producer.close()
    done = run(f"kafka://{kafka.address}/{dead}", status=1)
    assert (done["sent"], done["unknown"]) == (0, 4)
