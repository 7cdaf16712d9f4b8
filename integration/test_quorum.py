"""Redrive from quorum queues: at a delivery limit of 2, without dead-lettering, nothing is lost."""

from __future__ import annotations

import random
import subprocess
import time
import uuid
from collections import Counter
from typing import Any

import pika
import pytest

from integration.queues import Queues
from integration.redriving import command, fill_queue, refusal, run
from integration.test_transports import amqp_url
from shield import Shield
from shield_rabbitmq import BlockingConnection, Publisher

MESSAGES = 500
LIMIT = {"x-queue-type": "quorum", "x-delivery-limit": 2}


class Quorum:
    """A quorum queue that drops what came back three times, and where its messages belong."""

    def __init__(self, url: str, messages: int = MESSAGES) -> None:
        self.url = url
        self.queue, self.original = (f"retain-{uuid.uuid4().hex}" for _ in range(2))
        self.source = amqp_url(url, self.queue)
        self.messages = messages
        with Queues(url) as queues:
            queues.channel.queue_declare(self.queue, durable=True, arguments=LIMIT)
            queues.channel.queue_declare(self.original, durable=True)
            fill_queue(queues.channel, self.queue, self.original, self.original, range(messages))

    def depths(self) -> tuple[int, int]:
        """How many wait in the quorum queue, and how many are back."""
        with Queues(self.url) as queues:
            return queues.depth(self.queue), queues.depth(self.original)

    def back(self) -> Counter[bytes]:
        """What is back, and how often each."""
        with Queues(self.url) as queues:
            return Counter(message.body for message in queues.take(self.original))

    def delete(self) -> None:
        """Take the queues away."""
        with Queues(self.url) as queues:
            queues.channel.queue_delete(self.queue)
            queues.channel.queue_delete(self.original)

    @property
    def expected(self) -> set[bytes]:
        """All bodies."""
        return {b"%d" % number for number in range(self.messages)}


@pytest.fixture
def quorum(rabbitmq: Any) -> Any:
    """Filled."""
    made = Quorum(rabbitmq.address)
    yield made
    made.delete()


def until(condition: Any, within_s: float = 60.0) -> None:
    """Wait for a condition."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_a_dry_run_refuses_and_says_how_to_go_on(quorum):
    """Looking would count; nothing has been looked at."""
    line = refusal(quorum.source, "--dry-run")
    assert "--yes" in line
    assert "--limit" in line
    assert quorum.depths() == (MESSAGES, 0)


@pytest.mark.timeout(300)
def test_five_dry_runs_that_are_confirmed_lose_nothing(quorum):
    """What came back before is put anew at the end of its queue, where it counts from zero."""
    for _ in range(5):
        document = run(quorum.source, "--dry-run", "--yes")
        assert sum(row["messages"] for row in document["messages"]) == MESSAGES
        until(lambda: quorum.depths() == (MESSAGES, 0))
    assert run(quorum.source)["sent"] == MESSAGES
    assert quorum.back() == Counter(quorum.expected)


@pytest.mark.timeout(300)
def test_runs_that_leave_what_they_do_not_mean_lose_none_of_it(quorum):
    """Four runs that mean nothing, then one that means all."""
    for _ in range(4):
        assert run(quorum.source, "--where", "rule==other")["skipped"] >= MESSAGES
        until(lambda: quorum.depths() == (MESSAGES, 0))
    assert run(quorum.source)["sent"] == MESSAGES
    assert quorum.back() == Counter(quorum.expected)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_killed_twenty_times_it_loses_nothing(quorum):
    """Each kill costs what is under way one delivery; what came back before is put anew."""
    for _ in range(20):
        process = subprocess.Popen(
            command(quorum.source, "--rate", "100/s"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0.0, 0.4))
        process.kill()
        process.communicate()
    assert run(quorum.source)["complete"]
    back = quorum.back()
    print(f"20 kills: {sum(back.values()) - MESSAGES} copies")
    assert set(back) == quorum.expected


@pytest.mark.timeout(600)
def test_twenty_pauses_and_restarts_of_auto_lose_nothing(rabbitmq):
    """The rule refuses again and again while it brings back; every third time the program ends."""
    quorum = Quorum(rabbitmq.address)
    rule = {
        "name": "orders",
        "match": quorum.original,
        "quota": {"rate": "150/s", "burst": 20},
        "over_limit": [f"overflow /{quorum.queue}"],
        "redrive": "auto",
    }
    offered = 0
    for restart in range(7):
        shield = Shield({"rules": [rule]})
        with Publisher(rabbitmq.address, shield=shield) as publisher:
            for _ in range(3):
                before = quorum.depths()[1]
                until(lambda before=before: quorum.depths()[1] > before + 5)
                pressed = [
                    publisher.publish("", quorum.original, b"new %d" % (offered + n))
                    for n in range(60)
                ]
                offered += len(pressed)
                for future in pressed:
                    future.result(20)
            assert shield.ledger().balanced
        if restart < 6 and not quorum.depths()[0]:
            break
    expected = quorum.expected | {b"new %d" % n for n in range(offered)}
    run(quorum.source)
    assert quorum.depths()[0] == 0
    back = quorum.back()
    assert set(back) == expected
    assert sum(back.values()) == len(expected)
    quorum.delete()


# --- consuming under rules ------------------------------------------------------------------------


def _calls_back(channel: Any, queue: str, handle: Any) -> None:
    channel.basic_consume(queue, lambda _channel, method, _properties, body: handle(method, body))
    while not handle.done():
        channel.connection.process_data_events(0.05)


def _generates(channel: Any, queue: str, handle: Any) -> None:
    for method, _properties, body in channel.consume(queue, inactivity_timeout=0.05):
        if method is not None:
            handle(method, body)
        if handle.done():
            return


def _gets(channel: Any, queue: str, handle: Any) -> None:
    while not handle.done():
        method, _properties, body = channel.basic_get(queue)
        if method is None:
            channel.connection.sleep(0.01)
        else:
            handle(method, body)


class Handler:
    """Acknowledges what it is handed; it is slow now and then."""

    def __init__(self, channel: Any, messages: int) -> None:
        self._channel = channel
        self._messages = messages
        self._end_s = time.monotonic() + 90
        self.got: list[bytes] = []

    def __call__(self, method: Any, body: bytes) -> None:
        self.got.append(body)
        if len(self.got) % 50 == 0:
            self._channel.connection.sleep(0.3)
        self._channel.basic_ack(method.delivery_tag)

    def done(self) -> bool:
        return len(self.got) >= self._messages or time.monotonic() > self._end_s


@pytest.mark.timeout(300)
@pytest.mark.parametrize("quota", [("200/s", 10), ("800B/s", "50B")], ids=["messages", "bytes"])
@pytest.mark.parametrize("consume", [_calls_back, _generates, _gets])
def test_a_small_quota_beside_a_large_prefetch_costs_no_delivery(rabbitmq, consume, quota):
    """What is held back stays with its consumer: a limit of 2 is never reached, and all come once.

    Messages of three bytes each, pauses between them, a prefetch for all of them.
    """
    bodies = [b"%03d" % number for number in range(300)]
    with Queues(rabbitmq.address) as queues:
        queue = queues.queue(x_queue_type="quorum", x_delivery_limit=2)
        queues.channel.confirm_delivery()
        for body in bodies:
            queues.channel.basic_publish("", queue, body)
        rule: dict[str, Any] = {"match": queue, "direction": "consume"}
        rule["quota"] = dict(zip(("rate", "burst"), quota, strict=True))
        parameters = pika.URLParameters(rabbitmq.address)
        with BlockingConnection(parameters, shield={"rules": [rule]}) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=len(bodies))
            handler = Handler(channel, len(bodies))
            consume(channel, queue, handler)
        assert handler.got == bodies
        until(lambda: queues.depth(queue) == 0)
        queues.channel.queue_delete(queue)
