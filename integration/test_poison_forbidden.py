"""A user who may not write everywhere: what he may not fails alone, by each way to a RabbitMQ."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pika import BasicProperties, URLParameters

from integration.queues import Queues
from integration.redriving import fill_queue, run
from integration.test_transports import amqp_url
from shield import Shield
from shield_rabbitmq import BlockingConnection, ExchangeError, Publisher, RefusedError
from tests.contracts.poison import BODIES, GOOD
from tests.eventually import eventually

PERSISTENT = BasicProperties(delivery_mode=2)
BAD = b"bad"


@dataclass
class Forbidden:
    """A broker with an exchange and a topic that one user may not write to."""

    admin: str
    url: str
    queue: str
    exchange: str = "forbidden"
    topics: str = "topics"

    def arrived(self) -> Counter[bytes]:
        with Queues(self.admin) as queues:
            eventually(lambda: queues.depth(self.queue) >= GOOD)
            return Counter(queues.bodies(self.queue))

    def bad(self, reason: str) -> tuple[str, str]:
        """Return where the bad one goes."""
        if reason == "exchange":
            return self.exchange, self.queue
        return self.topics, "secret.one"


@pytest.fixture(scope="module")
def broker(private_rabbitmq: Any) -> Any:
    own = private_rabbitmq()
    own.ctl("add_user", "limited", "limited")
    own.ctl("set_permissions", "limited", ".*", "^(?!forbidden).*$", ".*")
    own.ctl("set_topic_permissions", "limited", "topics", "^open", ".*")
    return own


@pytest.fixture
def forbidden(broker: Any) -> Iterator[Forbidden]:
    with Queues(broker.address) as queues:
        queue = queues.queue()
        queues.channel.exchange_declare("forbidden", "fanout")
        queues.channel.exchange_declare("topics", "topic")
        queues.channel.queue_bind(queue, "topics", "#")
        queues.channel.queue_bind(queue, "forbidden")
        limited = broker.address.replace("guest:guest", "limited:limited")
        assert limited != broker.address
        yield Forbidden(broker.address, limited, queue)
        queues.channel.queue_delete(queue)


@pytest.mark.parametrize("reason", ["exchange", "topic"])
def test_a_publisher(forbidden: Forbidden, reason: str) -> None:
    """Hundreds on the wire beside it."""
    with Publisher(forbidden.url, shield={}) as publisher:
        futures = [publisher.publish("", forbidden.queue, b, PERSISTENT) for b in BODIES[:150]]
        bad = publisher.publish(*forbidden.bad(reason), BAD, PERSISTENT)
        futures += [publisher.publish("", forbidden.queue, b, PERSISTENT) for b in BODIES[150:]]
        publisher.flush(60)
        error = bad.exception(0)
        assert isinstance(error, ExchangeError | RefusedError)
        assert forbidden.bad(reason)[0] in str(error)
        assert [future.exception(0) for future in futures] == [None] * GOOD
    assert forbidden.arrived() == Counter(BODIES)


@pytest.mark.parametrize("reason", ["exchange", "topic"])
def test_a_spool(forbidden: Forbidden, reason: str, tmp_path: Path, caplog: Any) -> None:
    """It stays there, and holds up no other."""
    chain = ["spool 100MB"]
    rule = {"match": "*", "quota": {"rate": "200/s", "burst": 1}, "over_limit": chain}
    own = Shield({"spool_dir": str(tmp_path), "rules": [rule]})
    with Publisher(forbidden.url, shield=own) as publisher:
        publisher.publish("", forbidden.queue, BODIES[0], PERSISTENT).result(60)
        for body in BODIES[1:150]:
            publisher.publish("", forbidden.queue, body, PERSISTENT)
        publisher.publish(*forbidden.bad(reason), BAD, PERSISTENT)
        for body in BODIES[150:]:
            publisher.publish("", forbidden.queue, body, PERSISTENT)
        eventually(lambda: own.ledger().delivered == GOOD)
        ledger = own.ledger()
        assert ledger.balanced
        assert ledger.delivered == GOOD
        assert ledger.spooled + ledger.failed == 1  # it may be one of the few within the quota
    assert forbidden.arrived() == Counter(BODIES)
    assert forbidden.bad(reason)[0] in caplog.text


@pytest.mark.parametrize("reason", ["exchange", "topic"])
def test_a_redrive(forbidden: Forbidden, reason: str) -> None:
    """It is reported, and all behind it go back."""
    with Queues(forbidden.admin) as queues:
        aside = queues.queue()
        good = [b"%d" % number for number in range(GOOD)]
        fill_queue(queues.channel, aside, forbidden.queue, forbidden.queue, range(150))
        exchange, key = forbidden.bad(reason)
        fill_queue(queues.channel, aside, f"{exchange}/{key}", key, [9999])
        fill_queue(queues.channel, aside, forbidden.queue, forbidden.queue, range(150, GOOD))
        document = run(amqp_url(forbidden.url, aside), status=1)
        assert document["sent"] == GOOD
        assert exchange in str(document)
        assert forbidden.arrived() == Counter(good)


def test_a_consumer_that_diverts(broker: Any, forbidden: Forbidden) -> None:
    """What may not go there is handed over; the others go, once each, before and behind it."""
    broker.ctl("set_topic_permissions", "limited", "late", "^open", ".*")
    with Queues(forbidden.admin) as queues:
        source, exchange = queues.queue(), queues.exchange("fanout")
        queues.channel.queue_bind(source, exchange)
        queues.channel.exchange_declare("late", "topic")
        queues.channel.queue_bind(forbidden.queue, "late", "#")
        old = BasicProperties(timestamp=int(time.time()) - 3600, delivery_mode=2)
        for body in (*BODIES[:150], BAD, *BODIES[150:]):
            queues.channel.basic_publish(exchange, "secret" if body == BAD else "open", body, old)
        rule = {"match": source, "direction": "consume", "max_age": "1m"}
        own = Shield({"rules": [{**rule, "over_limit": "overflow late"}]})
        got: list[bytes] = []
        with BlockingConnection(URLParameters(forbidden.url), shield=own) as connection:
            channel = connection.channel()

            def handle(_channel: Any, method: Any, _properties: Any, body: bytes) -> None:
                got.append(body)
                channel.basic_ack(method.delivery_tag)

            channel.basic_qos(prefetch_count=50)
            channel.basic_consume(source, handle)

            def all_seen() -> bool:
                connection.process_data_events(0.1)
                return own.ledger().overflowed == GOOD and bool(got)

            eventually(all_seen)
        assert got == [BAD]
        assert forbidden.arrived() == Counter(BODIES)
        assert queues.depth(source) == 0
        assert own.ledger().balanced
