"""What the bare client refuses in the call is refused in the call, whichever way a message goes."""

from __future__ import annotations

import enum
from typing import Any

import kafka
import pytest
from kafka.partitioner import Partitioner

import shield
from shield_kafka.demo.embedded import API_VERSION

WAYS = ["drop", "raise", "wait 10ms", "retry 1", "buffer 10", "spool 1MiB", "overflow {o}"]
BAD: dict[str, dict[str, Any]] = {
    "a value of text": {"value": "text"},
    "a value of another type": {"value": 3.5},
    "a key of another type": {"key": 7},
    "neither key nor value": {"value": None},
    "headers as a dict": {"headers": {"a": b"b"}},
    "headers as a tuple": {"headers": (("a", b"b"),)},
    "a header's value of text": {"headers": [("a", "b")]},
    "a header's value of None": {"headers": [("a", None)]},
    "a header's name of bytes": {"headers": [(b"a", b"b")]},
    "a header's name that is no Unicode": {"headers": [("\ud800", b"b")]},
    "a header of three parts": {"headers": [("a", b"b", b"c")]},
    "a partition that is not there": {"partition": 99},
    "a partition below zero": {"partition": -1},
    "a partition of text": {"partition": "1"},
    "an illegal topic": {"topic": "no such/topic!"},
    "an empty topic": {"topic": ""},
    "a long topic": {"topic": "t" * 250},
    "a topic of dots": {"topic": ".."},
    "a topic of bytes": {"topic": b"bytes"},
    "no topic": {"topic": None},
    "a timestamp of text": {"timestamp_ms": "x"},
    "a timestamp with a fraction": {"timestamp_ms": 1.5},
    "a timestamp that is a truth value": {"timestamp_ms": True},
    "a message that is too large": {"value": b"x" * 2_000_000},
    "headers that are too large": {"headers": [("a", b"x" * 2_000_000)]},
}


class Fails(Partitioner):  # type: ignore[misc] # kafka-python is untyped
    """Assigns no partition, or raises, as its key says."""

    def partition(self, topic: str, key: Any, *_: Any) -> int | None:
        if key == b"raise":
            raise ZeroDivisionError("the partitioner's own")
        return 0 if key is None else None


def over_limit(topic: str, way: str, tmp_path: Any) -> shield.Shield:
    """A Shield whose rule admits one message and sends all others one way."""
    rule = {
        "match": "*",
        "except": f"{topic}.o",
        "quota": {"rate": "1/h", "burst": 1},
        "over_limit": [way.format(o=f"{topic}.o")],
    }
    return shield.Shield({"shield": {"spool_dir": str(tmp_path)}, "rules": [rule]})


@pytest.fixture
def bare(bootstrap):
    with kafka.KafkaProducer(
        bootstrap_servers=bootstrap, api_version=API_VERSION, max_block_ms=300
    ) as producer:
        yield producer


def refusal(producer: Any, arguments: dict[str, Any]) -> tuple[type[BaseException], str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the bare client raises
        producer.send(**arguments)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_refuses_what_the_bare_client_does(producers, bare, topic, way, tmp_path):
    """The same error in the same words, nothing kept, sent or dropped, and the books balance."""
    producer = producers(over_limit(topic, way, tmp_path), max_block_ms=300)
    producer.send(topic, b"first").get(5)
    for what, bad in BAD.items():
        arguments = {"topic": topic, "value": b"v"} | bad
        assert refusal(producer, arguments) == refusal(bare, arguments), what
    ledger = producer.shield.ledger()
    ends = (ledger.dropped, ledger.raised, ledger.buffered, ledger.spooled, ledger.overflowed)
    assert ends == (0, 0, 0, 0, 0)
    assert (ledger.delivered, ledger.in_flight, ledger.balanced) == (1, 0, True)


@pytest.mark.parametrize("bad", BAD, ids=list(BAD))
def test_what_is_refused_charges_nothing(producers, topic, bad, tmp_path):
    """The quota's one message is there for who comes next."""
    producer = producers(over_limit(topic, "raise", tmp_path), max_block_ms=300)
    refusal(producer, {"topic": topic, "value": b"v"} | BAD[bad])
    assert shield.fate(producer.send(topic, b"the one")) == "sent"


@pytest.mark.parametrize("way", WAYS)
def test_what_a_partitioner_refuses_is_refused_in_the_call(producers, topic, way, tmp_path):
    """It is asked once, in the call, also where the message is to go elsewhere."""
    producer = producers(over_limit(topic, way, tmp_path), partitioner=Fails())
    producer.send(topic, b"first").get(5)
    for key, error in ((b"raise", ZeroDivisionError), (b"none", ValueError)):
        assert refusal(producer, {"topic": topic, "value": b"v", "key": key})[0] is error


@pytest.mark.parametrize("timestamp_ms", [2**63, -(2**63) - 1, 2**70])
@pytest.mark.parametrize("burst", [1, 2], ids=["over the limit", "admitted"])
def test_a_timestamp_beyond_64_bits_is_refused(producers, topic, timestamp_ms, burst):
    """The bare client takes it, and sends nothing any more."""
    producer = producers([{"match": topic, "quota": {"rate": "1/h", "burst": burst}}])
    producer.send(topic, b"first").get(5)
    error, text = refusal(producer, {"topic": topic, "value": b"v", "timestamp_ms": timestamp_ms})
    assert (error, "64 bits" in text) == (ValueError, True)


class Topic(enum.StrEnum):
    """Names as many programs keep them."""

    ORDERS = "orders-of-an-enum"


@pytest.mark.parametrize("headers", [None, [("a", b"b")]])
def test_a_topic_that_is_a_kind_of_text_is_no_way_round_the_rules(producers, topic, headers):
    """The client takes an enum's member; so do the rules, by its text."""
    producer = producers([{"match": Topic.ORDERS.value, "quota": {"rate": "1/h", "burst": 1}}])
    producer.send(Topic.ORDERS, b"first", headers=headers).get(5)
    with pytest.raises(shield.OverLimitError):
        producer.send(Topic.ORDERS, b"second", headers=headers)


@pytest.mark.parametrize("way", ["buffer 10", "spool 1MiB", "overflow {o}"])
def test_a_message_of_the_largest_size_may_be_set_aside(producers, topic, read, way, tmp_path):
    """Headers of ours are not on its account."""
    producer = producers(over_limit(topic, way, tmp_path), max_request_size=10_000)
    producer.send(topic, b"first").get(5)
    overhead = producer._estimate_size_in_bytes(None, b"", [])
    future = producer.send(topic, b"x" * (10_000 - overhead - 2))
    if way != "buffer 10":
        future.get(5)
    assert shield.fate(future) == {"b": "buffered", "s": "spooled", "o": "overflowed"}[way[0]]
