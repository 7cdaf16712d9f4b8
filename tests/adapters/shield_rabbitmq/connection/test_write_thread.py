"""The write thread of a publisher meets what nobody foresaw: it goes on, and nobody waits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from shield import Shield
from shield_rabbitmq import CannotConnectError, Publisher, RabbitMQDeliveryUnknownError
from shield_rabbitmq.connection.exchanges import Exchanges
from shield_rabbitmq.connection.link import Link
from shield_rabbitmq.connection.write_thread import WriteThread
from tests.adapters.shield_rabbitmq.amqp_server import AmqpServer
from tests.eventually import GENEROUS_S

QUEUE, EXCHANGE = "work", "topics"


@pytest.fixture
def server() -> Iterator[AmqpServer]:
    server = AmqpServer()
    server.exchanges[EXCHANGE] = QUEUE
    yield server
    server.close()


@pytest.fixture
def publisher(server: AmqpServer) -> Iterator[Publisher]:
    publisher = Publisher(server.url, shield=Shield({"rules": []}))
    yield publisher
    publisher.close(5)


def fails_once(monkeypatch: Any, where: type, name: str, error: BaseException) -> list[int]:
    """Let a method raise when it is called next; return how often it has."""
    method, raised = getattr(where, name), []

    def failing(*arguments: Any) -> Any:
        if not raised:
            raised.append(1)
            raise error
        return method(*arguments)

    monkeypatch.setattr(where, name, failing)
    return raised


def publish(publisher: Publisher, messages: int) -> list[Future[None]]:
    return [publisher.publish(EXCHANGE, "key", b"%d" % number) for number in range(messages)]


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), SystemExit(1)], ids=repr)
@pytest.mark.parametrize(
    ("where", "name"),
    [
        (WriteThread, "_drain"),
        (WriteThread, "_is_doubtful"),
        (Exchanges, "ask"),
        (WriteThread, "_feed"),
        (WriteThread, "link_ready"),
        (WriteThread, "_note_drained"),
        (Link, "_connect"),
        (Link, "_channel_opened"),
    ],
)
def test_an_error_fails_what_waits_and_the_next_message_arrives(
    server, publisher, monkeypatch, caplog, where, name, error
):
    """With a log entry; what was written is in doubt, what was not is not sent."""
    monkeypatch.setattr("shield_rabbitmq.connection.write_thread.FAILED_PAUSE_S", 0.0)
    raised = fails_once(monkeypatch, where, name, error)
    futures = publish(publisher, 20)
    ends = [future.exception(GENEROUS_S) for future in futures]
    assert raised
    allowed = RabbitMQDeliveryUnknownError | CannotConnectError | None
    assert all(isinstance(end, allowed) for end in ends), ends
    assert type(error).__name__ in caplog.text
    publisher.publish(EXCHANGE, "key", b"next").result(GENEROUS_S)
    publisher.flush(GENEROUS_S)
    ledger = publisher.shield.ledger()
    assert ledger.balanced
    assert ledger.delivered == ends.count(None) + 1
    assert (ledger.in_flight, publisher.unconfirmed) == (0, 0)
    signals = publisher.signals
    assert (signals.queue_messages, signals.queue_bytes, signals.in_flight) == (0, 0, 0)
    assert b"next" in server.queues[QUEUE]


def test_a_callback_that_ends_its_thread_ends_no_other_message(server, publisher, caplog):
    """`sys.exit` in a future's callback: `concurrent.futures` lets it pass."""
    futures = publish(publisher, 1)
    futures[0].result(GENEROUS_S)
    server.confirms = False
    futures = publish(publisher, 50)
    futures[10].add_done_callback(lambda _future: sys.exit("away"))
    server.confirms = True
    futures += publish(publisher, 50)
    for future in futures:
        future.result(GENEROUS_S)
    publisher.flush(GENEROUS_S)
    assert publisher.shield.ledger().delivered == 101
    assert "who waits for a message" in caplog.text


def test_closing_has_a_bound_where_the_thread_fails_as_it_ends(publisher, monkeypatch):
    """And leaves nothing open."""
    publish(publisher, 1)[0].result(GENEROUS_S)
    fails_once(monkeypatch, WriteThread, "_note_drained", RuntimeError("odd"))
    publisher.close(5)
    assert not publisher._writer._thread.is_alive()
    assert publisher.shield.ledger().balanced
