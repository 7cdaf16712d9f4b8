"""`amqp://` URLs that name an exchange or a queue, and properties that go another way."""

from __future__ import annotations

import pytest
from pika import BasicProperties

from shield import URL, Envelope, SettingsError, ShieldError
from shield_rabbitmq.client.address import address_of
from shield_rabbitmq.client.envelopes import diverted, stored_envelope
from shield_rabbitmq.publishing.publisher import parameters_of
from shield_rabbitmq.remote.transport import AmqpTransport


def address(text: str):
    return address_of(URL.parse(text))


@pytest.mark.parametrize(
    ("text", "vhost", "exchange", "routing_key"),
    [
        ("amqp://h/vhost/exchange/key", "vhost", "exchange", "key"),
        ("amqp://h/vhost/exchange", "vhost", "exchange", None),
        ("amqp://h/%2F/exchange", "/", "exchange", None),
        ("amqp://h//exchange/a.b/c", "/", "exchange", "a.b/c"),
        ("amqp://h//a%2Fb/k%20y", "/", "a/b", "k y"),
        ("amqp://h///queue", "/", "", "queue"),
        ("amqp://h/vhost", "vhost", None, None),
        ("amqp://h", "/", None, None),
        ("amqp://h/", "/", None, None),
        ("amqp://h/vhost//", "vhost", None, None),
    ],
)
def test_the_virtual_host_comes_first(text, vhost, exchange, routing_key):
    """An empty one is `/`; then exchange and routing key, each percent-decoded."""
    found = address(text)
    assert found.parameters.virtual_host == vhost
    assert (found.exchange, found.routing_key) == (exchange, routing_key)


def test_a_silent_broker_is_found_out_soon_unless_the_url_says_otherwise():
    """Short timeouts and heartbeats; pika's own options are taken."""
    found = address("amqps://b%40b:p%2Fw@h:5/v/x?heartbeat=60").parameters
    assert (found.heartbeat, found.stack_timeout, found.connection_attempts) == (60, 3, 1)
    assert (found.credentials.username, found.credentials.password) == ("b@b", "p/w")
    assert found.ssl_options is not None
    assert found.port == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://a,b/v/x", "has to name one host"),
        ("amqp:///v/x", "has to name one host"),
        ("amqp://h/v/" + "x" * 256, "has 256 bytes; allowed are 255"),
        ("amqp://u:canary@h/v/x?heartbeat=often", "heartbeat"),
        ("amqp://u:canary@h/v/x?heartbeats=5", "unknown option 'heartbeats'"),
    ],
)
def test_a_wrong_url_says_what_is_allowed(text, expected):
    """And no password."""
    with pytest.raises(ValueError, match=expected) as caught:
        address(text)
    assert "canary" not in str(caught.value)


def test_a_queue_is_one_name_behind_the_virtual_host():
    """An exchange with a routing key cannot be read."""
    with pytest.raises(ValueError, match="allowed is amqp://host:port/vhost/QUEUE"):
        AmqpTransport.source(URL.parse("amqp://h/v/exchange/key"))


def test_a_broker_that_is_away_cannot_be_read():
    """A clear error, without the password."""
    with pytest.raises(ShieldError, match=r"cannot read from amqp://127\.0\.0\.1:1/") as caught:
        AmqpTransport.source(URL.parse("amqp://u:canary@127.0.0.1:1//queue"))
    assert "canary" not in str(caught.value)


def test_pika_does_not_tell_a_piece_of_a_password():
    """It takes what stands before a slash for a port, and says so."""
    with pytest.raises(SettingsError) as caught:
        parameters_of("amqp://bob:canary/rest@host")
    assert "canary" not in str(caught.value)


def test_a_kafka_record_has_persistent_properties_and_its_timestamp():
    """Headers as text where they are, those that fit no table in one of ours."""
    envelope = Envelope(
        "t", b"", "kafka", b"k", (("a", b"x"), ("a", b"\xff"), ("n" * 200, b"y")), timestamp_ms=5999
    ).diverted({"shield-original-destination": "t"})
    encoded = diverted(envelope)
    properties = BasicProperties()
    properties.decode(b"".join(encoded.encode()))
    assert (properties.delivery_mode, properties.timestamp) == (2, 5)
    assert "n" * 200 not in properties.headers
    back = stored_envelope("", "q", b"", encoded)
    assert dict(back.marks)["shield-original-timestamp"] == "5999"
