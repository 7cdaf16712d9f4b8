"""The cases that every client adapter passes, on kafka-python's producer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import kafka
import pytest
from kafka.partitioner import Partitioner

import shield_kafka
from shield import Shield
from shield_kafka.demo.embedded import API_VERSION
from tests.contracts.adapter import Adapter, Arrived, FutureContract

_names = itertools.count()


class FirstPartition(Partitioner):
    """Puts everything into one partition, so that the order of arrival can be read."""

    def partition(self, *arguments: Any) -> int:
        return 0


class KafkaAdapter(Adapter):
    """kafka-python's producer against librdkafka's mock cluster."""

    over_limit_error = kafka.errors.KafkaError
    remembers = {"shield-original-partition": "0"}  # its own partitioner chose it

    def __init__(self, bootstrap: str, read: Callable[[str], list[Any]]) -> None:
        self._bootstrap = bootstrap
        self._read = read

    def publisher(self, chosen: Shield, name: str) -> shield_kafka.KafkaProducer:
        return shield_kafka.KafkaProducer(
            bootstrap_servers=self._bootstrap,
            shield=chosen,
            shield_producer=name,
            api_version=API_VERSION,
            max_block_ms=10_000,  # a busy machine takes its time to make a topic
            partitioner=FirstPartition(),
        )

    def destination(self) -> str:
        return f"contract-{next(_names)}"

    def publish(self, publisher: Any, destination: str, body: bytes, headers: Any) -> Any:
        pairs = [(name, text.encode()) for name, text in headers.items()]
        return publisher.send(destination, body, headers=pairs)

    def result(self, publisher: Any, future: Any) -> object:
        return future.get(60)

    def arrived(self, publisher: Any, destination: str) -> Sequence[Arrived]:
        publisher.flush(5)
        return [
            (message.value(), {k: v.decode() for k, v in message.headers() or ()})
            for message in self._read(destination)
        ]

    def close(self, publisher: Any) -> None:
        publisher.close(timeout=5)

    def wrong_calls(self, publisher: Any, destination: str) -> Sequence[Callable[[], object]]:
        return [
            lambda: publisher.send(destination, "text"),
            lambda: publisher.send(destination, b"v", 7),
            lambda: publisher.send(destination, b"v", headers={"a": b"b"}),
            lambda: publisher.send(destination),
            lambda: publisher.send(7, b"v"),
        ]

    def unreachable(self) -> str:
        return "not*a*legal*name"


class TestKafkaProducer(FutureContract):
    @pytest.fixture
    def adapter(self, bootstrap, read) -> Adapter:
        return KafkaAdapter(bootstrap, read)
