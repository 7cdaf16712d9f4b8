"""`kafka://` URLs, and what sends to them, on the embedded Kafka."""

from __future__ import annotations

import threading
import time

import pytest

from shield import URL, Envelope, ShieldError
from shield_kafka.client.address import address_of
from shield_kafka.remote.transport import KafkaTransport


def address(text: str):
    return address_of(URL.parse(text))


def test_a_url_names_servers_and_topic():
    """Several brokers of one cluster, in any order, are one origin."""
    found = address("kafka://b:2,a:1/orders.overflow?linger_ms=5&client_id=x")
    assert found.topic == "orders.overflow"
    assert found.configs == {"bootstrap_servers": ["b:2", "a:1"], "linger_ms": 5, "client_id": "x"}
    assert found.origin == "kafka://a:1,b:2"
    assert "linger_ms" not in found.consumer_configs


def test_a_user_means_sasl_over_tls_unless_the_url_says_otherwise():
    """A password goes over the wire in the clear only where that is written."""
    configs = address("kafka://bob:pw@h:1/t").configs
    assert (configs["security_protocol"], configs["sasl_mechanism"]) == ("SASL_SSL", "PLAIN")
    assert (configs["sasl_plain_username"], configs["sasl_plain_password"]) == ("bob", "pw")
    chosen = "security_protocol=SASL_PLAINTEXT&sasl_mechanism=SCRAM-SHA-512"
    configs = address(f"kafka://bob:pw@h:1/t?{chosen}").configs
    assert configs["security_protocol"] == "SASL_PLAINTEXT"
    assert configs["sasl_mechanism"] == "SCRAM-SHA-512"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kafka:///topic", "has no host"),
        ("kafka://a:1,/topic", "has no host"),
        ("kafka://h:1/a/b", "is no topic's name"),
        ("kafka://h:1/a%20b", "is no topic's name"),
        ("kafka://h:1/..", "is no topic's name"),
        ("kafka://h:1/t?ack=1", "unknown option 'ack'"),
        ("kafka://h:1/t?linger_ms=2s", "linger_ms: found '2s'; allowed is 0 to 1000"),
        ("kafka://h:1/t?api_version=new", "api_version: found 'new'"),
        ("kafka://h:1/t?compression_type=rar", "compression_type: found 'rar'; allowed: gzip"),
        ("kafka://h:1/t?security_protocol=TLS", "security_protocol: found 'TLS'"),
        ("kafka://u:canary@h:1/t?security_protocol=SSL", "takes no user"),
    ],
)
def test_a_wrong_url_says_what_is_allowed(text, expected):
    """And no password."""
    with pytest.raises(ValueError, match=expected) as caught:
        address(text)
    assert "canary" not in str(caught.value)


@pytest.fixture
def transport(bootstrap, topic):
    url = URL.parse(f"kafka://{bootstrap}/{topic}?api_version=2.3")
    transport = KafkaTransport.to(url)
    yield transport
    transport.close(5)


class Ends:
    """How sends ended, in order."""

    def __init__(self, number: int) -> None:
        self.errors: list[Exception | None] = []
        self._number = number
        self._all = threading.Event()

    def __call__(self, error: Exception | None) -> None:
        self.errors.append(error)
        if len(self.errors) == self._number:
            self._all.set()

    def wait(self) -> list[Exception | None]:
        assert self._all.wait(60)
        return self.errors


def test_it_connects_with_its_first_message(transport, topic, read):
    """On a thread that is gone when that is done; a caller is never kept."""
    assert transport._sender is None
    ends = Ends(100)
    began = time.monotonic()
    for number in range(100):
        transport.send(Envelope("orders", b"%d" % number, "kafka", b"key", (("h", b"1"),)), ends)
    assert time.monotonic() - began < 2.5
    assert ends.wait() == [None] * 100
    assert [message.value() for message in read(topic)] == [b"%d" % n for n in range(100)]
    deadline = time.monotonic() + 5
    while transport._thread is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "shield-kafka-connect" not in {thread.name for thread in threading.enumerate()}


def test_without_a_topic_each_message_goes_to_its_own(bootstrap, topic, read):
    """With its partition; what names no topic fails alone."""
    transport = KafkaTransport.to(URL.parse(f"kafka://{bootstrap}?api_version=2.3"))
    assert transport.roams
    ends = Ends(2)
    transport.send(Envelope("exchange/key", b"", "amqp", routing_key="key"), ends)
    transport.send(Envelope(topic, b"body", "kafka", partition=3), ends)
    first, second = ends.wait()
    transport.close(5)
    assert isinstance(first, ShieldError)
    assert second is None
    assert [(message.value(), message.partition()) for message in read(topic)] == [(b"body", 3)]


def test_what_kafka_does_not_take_fails_alone(transport):
    """A record whose time is none that the protocol can carry."""
    ends = Ends(2)
    transport.send(Envelope("orders", b"x", "kafka", timestamp_ms=2**63), ends)
    transport.send(Envelope("orders", b"x", "kafka"), ends)
    assert sorted(error is None for error in ends.wait()) == [False, True]


def test_closing_before_it_is_connected_fails_what_waits():
    """Nothing is left unanswered where nobody answers."""
    transport = KafkaTransport.to(URL.parse("kafka://127.0.0.1:1/topic"))
    ends = Ends(3)
    for _ in range(3):
        transport.send(Envelope("orders", b"", "kafka"), ends)
    transport.close(0.0)
    assert all(isinstance(error, ShieldError) for error in ends.wait())
