"""Records on their way elsewhere: counted while they have no answer, answered once."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from shield import URL, Delivery, DeliveryUnknownError, Envelope, OverLimit, Transport
from shield.action import Divert
from shield_kafka.consuming import overflow
from shield_kafka.consuming.overflow import ConsumerOverflow
from shield_kafka.remote.transport import KafkaTransport
from tests.eventually import eventually
from tests.making import shield_with

CONFIGS = {
    "bootstrap_servers": "a:9092,b:9092",
    "client_id": "c",
    "proxy_url": "socks5://p:1080",
    "security_protocol": "SSL",
}


class Held(Transport):
    """Keeps what it is given, with what is to be told of it."""

    scheme = "held"

    def __init__(self) -> None:
        self.sent: list[tuple[Envelope, Any]] = []

    def send(self, envelope, done):
        self.sent.append((envelope, done))

    def close(self, timeout_s):
        pass


class Raising(Held):
    """Answers, and raises nevertheless."""

    def send(self, envelope, done):
        done(None)
        raise RuntimeError("after the answer")


@pytest.fixture
def over() -> OverLimit:
    rule = {"name": "fresh", "match": "*", "direction": "consume", "max_age": "1s"}
    shield = shield_with(rule | {"over_limit": "drop"})
    verdict = shield.engine.receive(Delivery("orders", 4, "c", b"k", [("a", b"b")], written_s=1.0))
    assert isinstance(verdict, OverLimit)
    return verdict


def record(value: bytes | None = b"val", timestamp: int | None = 1000) -> ConsumerRecord:
    headers = [("a", b"b"), ("none", None)]
    return ConsumerRecord("orders", 3, 7, 42, timestamp, 0, b"k", value, headers, None, 1, 3, 4)


def test_a_record_goes_whole_with_the_headers_that_say_why(over):
    """And with the broker that it was read from, because that may be another one."""
    ended = []
    transport = Held()
    sending = ConsumerOverflow(CONFIGS).send(
        record(), over, Divert("x", lambda: ended.append(1), transport)
    )
    ((envelope, done),) = transport.sent
    assert (envelope.destination, envelope.key, envelope.body) == ("orders", b"k", b"val")
    assert (envelope.timestamp_ms, envelope.partition) == (1000, 3)
    assert envelope.headers == (("a", b"b"), ("none", None))
    marks = dict(envelope.marks)
    assert marks["shield-original-destination"] == "orders"
    assert marks["shield-original-broker"] == "kafka://a:9092,b:9092"
    assert marks["shield-reason"] == "older than 1 s"
    assert not sending.ended
    done(None)
    assert (sending.ended, sending.error, ended) == (True, None, [1])


@pytest.mark.parametrize(("value", "timestamp"), [(None, -1), (b"", None)])
def test_tombstones_and_missing_times_stay_what_they_are(over, value, timestamp):
    """The first message format has no times."""
    transport = Held()
    ConsumerOverflow(CONFIGS).send(
        record(value, timestamp), over, Divert("x", lambda: None, transport)
    )
    ((envelope, _),) = transport.sent
    assert envelope.body == value
    assert envelope.timestamp_ms is None


def test_there_is_room_until_so_many_are_under_way(over, monkeypatch):
    """Messages or bytes; an answer makes room."""
    monkeypatch.setattr(overflow, "MOST_MESSAGES", 2)
    transport = Held()
    ours = ConsumerOverflow(CONFIGS)
    for number in range(2):
        assert ours.has_room
        ours.send(record(), over, Divert("x", lambda: None, transport))
        assert ours.under_way == number + 1
    assert not ours.has_room
    transport.sent[0][1](RuntimeError("no"))
    assert ours.has_room
    monkeypatch.setattr(overflow, "MOST_BYTES", 4)
    assert not ours.has_room


def test_the_first_answer_counts(over):
    """Of a transport that answers twice, or answers and raises."""
    ended = []
    ours = ConsumerOverflow(CONFIGS)
    sending = ours.send(record(), over, Divert("x", lambda: ended.append(1), Raising()))
    assert (sending.ended, sending.error) == (True, None)
    assert ended == [1]
    assert ours.under_way == 0


@pytest.mark.parametrize(
    ("error", "hopeless"),
    [(MessageSizeTooLargeError(), True), (ValueError("v"), True), (KafkaTimeoutError(), False)],
)
def test_what_fails_is_told_from_where_it_fails_and_said_with_a_number(
    over, caplog, error, hopeless
):
    """A record that no cluster would take is not tried for ever; a cluster may get better."""
    overflow = ConsumerOverflow(CONFIGS)
    transport = KafkaTransport.to(URL.parse("kafka://127.0.0.1:1/late"))
    transport.send = lambda envelope, done: done(error)  # type: ignore[method-assign]
    for _ in range(3):
        sending = overflow.send(record(), over, Divert("late", lambda: None, transport))
    assert (sending.error, sending.hopeless) == (error, hopeless)
    assert overflow.failed == 3
    (line,) = caplog.messages
    for said in (
        "rule fresh: orders, partition 3, offset 42",
        "to late",
        "(1 so far)",
        repr(error),
    ):
        assert said in line


def test_its_own_producer_is_made_with_the_first_record_and_connects_as_the_consumer_does():
    """From what the configuration says about the cluster; nothing is made for nothing."""
    ours = ConsumerOverflow(CONFIGS | {"group_id": "g", "max_poll_records": 5})
    ours.close(0.0)
    transport = ours._within()
    assert ours._within() is transport
    assert transport._address.servers == ("a:9092", "b:9092")
    assert transport._address.configs == CONFIGS
    ours.close(0.0)


def test_a_transport_that_never_answers_has_a_limit_of_time(caplog):
    """Then the record goes on in its chain; what is said of it after that changes nothing."""
    rule = {"name": "fresh", "match": "*", "direction": "consume", "max_age": "1s"}
    shield = shield_with(rule | {"over_limit": "drop"}, answer_within=0.05)
    over = shield.engine.receive(Delivery("orders", 4, "c", b"k", None, written_s=1.0))
    ended: list[int] = []
    transport = Held()
    ours = ConsumerOverflow(CONFIGS)
    sending = ours.send(record(), over, Divert("x", lambda: ended.append(1), transport))
    eventually(lambda: sending.ended)
    assert isinstance(sending.error, DeliveryUnknownError)
    transport.sent[0][1](None)
    assert (sending.hopeless, ours.under_way, ended) == (False, 0, [1])
    assert "nothing has answered for it in 0.05 s" in caplog.text


def test_a_transport_that_does_not_know_whose_fault_it_is_has_failed(over):
    """It is asked for a yes or a no."""

    class Unsure(Held):
        def is_hopeless(self, error):
            raise RuntimeError("who knows")

    transport = Unsure()
    sending = ConsumerOverflow(CONFIGS).send(record(), over, Divert("x", lambda: None, transport))
    transport.sent[0][1]("stored")
    assert (sending.ended, sending.hopeless) == (True, False)
