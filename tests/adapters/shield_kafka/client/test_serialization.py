"""What was serialized once is never serialized again, whichever side has a serializer."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kafka.partitioner import Partitioner
from kafka.serializer import JsonSerializer, Serializer

import shield
from shield_kafka import KafkaProducer

WAYS = ["wait 5s", "retry 9", "buffer 10", "spool 1MiB", "overflow {o}"]


class Text(Serializer):  # type: ignore[misc] # kafka-python is untyped
    """Makes bytes of text, and None of an empty one; counts, and adds a header."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def serialize(self, topic: str, headers: Any, data: Any) -> bytes | None:
        self.asked.append(data)
        headers.append(("for", topic.encode()))
        return data.encode() if data else None


class OldText(Serializer):  # type: ignore[misc] # kafka-python is untyped
    """As kafka-python 2 has them: topic and data."""

    def serialize(self, topic: str, data: Any) -> bytes | None:  # type: ignore[override]
        return data.encode() if data else None


class ByRegion(Partitioner):  # type: ignore[misc] # kafka-python is untyped
    """Chooses by something that is in the user's value and not in its bytes."""

    def partition(self, topic: str, key: Any, key_bytes: Any, value: Any, *_: Any) -> int:
        return int(value["region"])


def producer_that_brings_back(producers, topic, way, tmp_path, **configs) -> KafkaProducer:
    """Three messages a second; what is set aside comes back by itself."""
    rule = {
        "match": topic,
        "quota": {"rate": "20/s", "burst": 1},
        "over_limit": [way.format(o=f"{topic}.o")],
    }
    settings = {"shield": {"spool_dir": str(tmp_path)}, "rules": [rule]}
    return producers(shield.Shield(settings), **configs)  # type: ignore[no-any-return]


def arrived(producer, topic, read, messages) -> list[Any]:
    """Wait until so many are in the topic, or have gone to its overflow."""
    producer.flush(10)
    give_up = time.monotonic() + 20
    place = topic
    while time.monotonic() < give_up:
        found = read(place)
        if len(found) < messages and producer.shield.ledger().overflowed:
            found += read(f"{topic}.o")
        if len(found) >= messages:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{len(found)} of {messages} are there")


CONFIGS: dict[str, tuple[dict[str, Any], tuple[Any, Any], tuple[Any, Any]]] = {
    "values alone": ({"value_serializer": JsonSerializer()}, (b"k", {"v": 1}), (b"k", b'{"v": 1}')),
    "keys alone": ({"key_serializer": JsonSerializer()}, (["k"], b"v"), (b'["k"]', b"v")),
    "a value that becomes None": (
        {"value_serializer": JsonSerializer()},
        (b"k", None),
        (b"k", None),
    ),
    "a function": ({"value_serializer": lambda v: None}, (b"k", "x"), (b"k", None)),
    "of text": ({"value_serializer": Text()}, (b"k", "x"), (b"k", b"x")),
    "of text, without a key": ({"value_serializer": Text()}, (None, "x"), (None, b"x")),
    "of the old kind": ({"value_serializer": OldText()}, (b"k", "x"), (b"k", b"x")),
    "a key that becomes None": ({"key_serializer": Text()}, ("", b"v"), (None, b"v")),
    "both become None": (
        {"key_serializer": Text(), "value_serializer": Text()},
        ("", ""),
        (None, None),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.filterwarnings("ignore:.*does not implement:DeprecationWarning")
def test_it_arrives_as_the_bare_client_sends_it(producers, topic, read, name, way, tmp_path):
    """Whichever side has a serializer, whatever that makes, and whichever way it goes."""
    configs, (key, value), expected = CONFIGS[name]
    producer = producer_that_brings_back(producers, topic, way, tmp_path, **configs)
    for _ in range(3):
        producer.send(topic, value, key=key)
    found = arrived(producer, topic, read, 3)
    assert [(message.key(), message.value()) for message in found] == [expected] * 3
    assert producer.shield.ledger().balanced


@pytest.mark.parametrize("way", WAYS)
def test_a_serializer_is_asked_once_for_each_message(producers, topic, read, way, tmp_path):
    """With topic and headers as the client gives them; a header that it adds is there once."""
    serializer = Text()
    producer = producer_that_brings_back(
        producers, topic, way, tmp_path, value_serializer=serializer
    )
    for number in range(3):
        producer.send(topic, str(number), key=b"k")
    found = arrived(producer, topic, read, 3)
    assert sorted(serializer.asked) == ["0", "1", "2"]
    for message in found:
        assert [value for name, value in message.headers() if name == "for"] == [topic.encode()]


@pytest.mark.parametrize("way", ["wait 5s", "buffer 10", "spool 1MiB"])
def test_the_users_partitioner_chooses_by_what_the_user_gave(producers, topic, read, way, tmp_path):
    """What comes back from bytes has no value to choose by; the choice was made before."""
    producer = producer_that_brings_back(
        producers,
        topic,
        way,
        tmp_path,
        value_serializer=JsonSerializer(),
        partitioner=ByRegion(),
    )
    for _ in range(3):
        producer.send(topic, {"region": 3}, key=b"k")
    assert {message.partition() for message in arrived(producer, topic, read, 3)} == {3}


@pytest.mark.parametrize("way", ["buffer 10", "spool 1MiB", "overflow {o}"])
def test_what_the_caller_changes_later_is_not_sent(producers, topic, read, way, tmp_path):
    """Lists of headers and bytearrays are the caller's, to be used again."""
    producer = producer_that_brings_back(producers, topic, way, tmp_path, linger_ms=100)
    producer.send(topic, b"first").get(5)
    headers, value, key = [("a", b"1")], bytearray(b"kept"), bytearray(b"key")
    producer.send(topic, value, key=key, headers=headers)
    headers[:] = [("a", b"2"), ("b", b"3")]
    value[:], key[:] = b"lost", b"yek"
    found = [m for m in arrived(producer, topic, read, 2) if m.value() != b"first"]
    assert [(m.key(), m.value()) for m in found] == [(b"key", b"kept")]
    assert [pair for pair in found[0].headers() if pair[0] in "ab"] == [("a", b"1")]


def test_serializers_are_closed_and_found_as_the_user_gave_them(producers):
    """Attributes of a serializer are there through what wraps it; closing reaches it."""
    closed: list[bool] = []

    class Closing(Text):
        name = "mine"

        def close(self) -> None:
            closed.append(True)

    producer = producers(value_serializer=Closing())
    assert producer.config["value_serializer"].name == "mine"
    assert producer.config["key_serializer"] is None
    producer.close()
    assert closed
