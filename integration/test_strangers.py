"""What strangers wrote beside good messages, on real brokers: each fails alone, and stays."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from kafka import KafkaProducer

import shield
from integration.queues import Queues
from integration.reading import read
from integration.redriving import headers_of
from integration.test_transports import amqp_url
from shield.headers import BROKER, ROUTING_KEY
from shield.url import URL
from tests.contracts.strangers import ELSEWHERE, UNREADABLE, forged

STRANGERS = {**UNREADABLE, **ELSEWHERE}
COPIES = {"a copy that no rule covers": "shield-original-cc", "a blind one": "shield-original-bcc"}
"""What only RabbitMQ has: a list of further places."""
FILE = Path("/", URL.parse(ELSEWHERE["a file"][BROKER]).path)


@pytest.fixture
def original() -> Iterator[str]:
    """Where they all pretend to be going; what a header names meanwhile is not made."""
    yield f"strangers-{uuid.uuid4().hex[:12]}"
    assert not FILE.exists()


def redriven(source: str, original: str) -> shield.Redriven:
    """Bring back what the one rule covers."""
    rules = [{"name": "orders", "match": original, "quota": "5000/s"}]
    return shield.redrive(source, shield=shield.Shield({"rules": rules}))


def check(source: str, original: str, elsewhere: int) -> None:
    """The good ones are back, the others named; a second run says the same, and sends nothing."""
    first = redriven(source, original)
    assert (first.sent, first.error) == (len(UNREADABLE) + elsewhere, None)
    second = redriven(source, original)
    for done in (first, second):
        assert (done.failed, done.refused) == (len(UNREADABLE), elsewhere)
        assert len(done.listed) == done.failed + done.refused
    assert second.sent == 0
    assert sorted(one.why for one in first.listed) == sorted(one.why for one in second.listed)


def expected(strangers: int) -> list[bytes]:
    return sorted(b"%d" % number for number in range(strangers))


def test_in_a_topic(kafka: Any, new_topic: Any, original: str) -> None:
    """Each has a good one behind it, in the same partition."""
    overflow = new_topic(1)
    with KafkaProducer(bootstrap_servers=kafka.address) as producer:
        for number, words in enumerate(STRANGERS.values()):
            for headers, body in (
                (forged(original, words), b"stranger"),
                (headers_of(number, original), b"%d" % number),
            ):
                encoded = [(name, text.encode()) for name, text in headers.items()]
                producer.send(overflow, body, headers=encoded)
    check(f"kafka://{kafka.address}/{overflow}", original, len(ELSEWHERE))
    back = [record.value for record in read(kafka.address, original)]
    assert sorted(back) == expected(len(STRANGERS))


def test_in_a_queue(rabbitmq: Any, original: str) -> None:
    """Also one that asks for copies where no rule lets it."""
    with Queues(rabbitmq.address) as queues:
        overflow, aim = queues.queue(), queues.queue()
        queues.channel.queue_declare(original, durable=True)
        key = {ROUTING_KEY: original}
        copies = [{name: [aim]} for name in COPIES.values()]
        words: list[dict[str, Any]] = [*STRANGERS.values(), *copies]
        for number, one in enumerate(words):
            put(queues, overflow, {**forged(original, key), **one}, b"stranger")
            put(queues, overflow, {**headers_of(number, original), **key}, b"%d" % number)
        check(amqp_url(rabbitmq.address, overflow), original, len(ELSEWHERE) + len(copies))
        assert sorted(queues.bodies(original)) == expected(len(words))
        assert queues.depth(aim) == 0
        assert queues.depth(overflow) == len(words)
        queues.channel.queue_delete(original)


def put(queues: Queues, queue: str, headers: dict[str, Any], body: bytes) -> None:
    queues.channel.basic_publish("", queue, body, pika.BasicProperties(headers=headers))
