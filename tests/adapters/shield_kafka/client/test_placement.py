"""What comes back goes to its own partition, with headers as they were, nulls among them."""

from __future__ import annotations

import logging

import pytest

from shield import Envelope
from shield.headers import DESTINATION
from shield_kafka.client.address import address_like
from shield_kafka.demo.embedded import API_VERSION
from shield_kafka.remote.transport import KafkaTransport
from tests.eventually import eventually

HEADERS = (("null", None), ("null", b""), ("a", b"\xff"), ("null", None))


@pytest.fixture(params=["the producer's own", "any"])
def carry(request, producers, bootstrap):
    """Send an envelope through a user's producer, or what carries to any cluster; wait."""
    if request.param == "any":
        configs = {"bootstrap_servers": bootstrap, "api_version": API_VERSION}
        transport = KafkaTransport(address_like(configs, ""))
    else:
        transport = producers()._transport
    ends: list[Exception | None] = []

    def send(envelope: Envelope) -> None:
        transport.send(envelope, ends.append)

    yield send, ends
    if request.param == "any":
        transport.close(5)


def wait_for(ends, messages):
    """Wait for the answers."""
    eventually(lambda: len(ends) >= messages)


def test_it_goes_to_its_partition_or_by_its_key_where_that_is_gone(carry, topic, read, caplog):
    """The mock cluster's topics have four; the log says so once, with how many."""
    send, ends = carry
    for partition in (3, 99, 98):
        send(Envelope(topic, b"%d" % partition, "kafka", b"k", partition=partition))
    wait_for(ends, 3)
    assert ends == [None] * 3
    found = {message.value(): message.partition() for message in read(topic)}
    assert found[b"3"] == 3
    assert found[b"99"] == found[b"98"]
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "no partition 99 any more" in line


def test_what_is_set_aside_goes_to_any_partition_with_a_time_of_its_own(carry, topic, read):
    """Its own ones are in headers, for when it comes back."""
    send, ends = carry
    envelope = Envelope(topic, b"v", "kafka", b"k", partition=99, timestamp_ms=1000)
    send(envelope.diverted({DESTINATION: "orders"}))
    wait_for(ends, 1)
    (message,) = read(topic)
    headers = dict(message.headers())
    assert headers["shield-original-partition"] == b"99"
    assert headers["shield-original-timestamp"] == b"1000"
    assert message.timestamp()[1] > 10**12


def test_headers_that_are_null_are_written_as_null(carry, topic, read):
    """kafka-python's `send` refuses them; others write them."""
    send, ends = carry
    send(Envelope(topic, b"v", "kafka", b"k", headers=HEADERS))
    wait_for(ends, 1)
    assert ends == [None]
    (message,) = read(topic)
    assert tuple(message.headers()) == HEADERS


def test_a_message_with_neither_key_nor_value_is_carried(carry, topic, read):
    """kafka-python's `send` refuses it; others write it."""
    send, ends = carry
    send(Envelope(topic, None, "kafka"))
    send(Envelope(topic, b"v", "kafka"))
    wait_for(ends, 2)
    assert sorted((m.key(), m.value() or b"") for m in read(topic)) == [(None, b""), (None, b"v")]
