"""Nonsense from plugins, over the real brokers: what goes wrong there concerns nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from integration.brokers import Broker, RabbitMQ, create_topic
from integration.reading import read
from integration.test_rabbitmq_publisher import PublisherAdapter
from shield import Shield
from shield_kafka import KafkaProducer
from tests.adapters.shield_kafka.producing.test_contract import FirstPartition, KafkaAdapter
from tests.contracts.adapter import Adapter
from tests.contracts.plugin_nonsense import PluginNonsense


class RealKafkaAdapter(KafkaAdapter):
    """The same producer, for topics that it finds on a real Kafka."""

    def __init__(self, address: str) -> None:
        super().__init__(address, lambda topic: read(address, topic))
        self._address = address

    def publisher(self, chosen: Shield, name: str) -> KafkaProducer:
        return KafkaProducer(
            bootstrap_servers=self._address,
            shield=chosen,
            shield_producer=name,
            partitioner=FirstPartition(),
        )

    def destination(self) -> str:
        return create_topic(self._address, 1)

    def arrived(self, publisher: Any, destination: str) -> list[Any]:
        publisher.flush(30)
        return [
            (record.value, {name: value.decode() for name, value in record.headers})
            for record in self._read(destination)
        ]

    def close(self, publisher: Any) -> None:
        publisher.close(timeout=30)


class Selection(PluginNonsense):
    """Of the policies' methods those whose failure meets a client's own threads and futures."""

    @pytest.mark.parametrize("mode", ["open", "closed"])
    @pytest.mark.parametrize("method", ["check", "acquire", "release", "pressure"])
    def test_what_a_policy_says_wrong_concerns_its_own_messages(
        self, adapter: Adapter, method: str, mode: str
    ) -> None:
        """They pass, or are refused, as `on_plugin_error` says; and it is named and counted."""
        super().test_what_a_policy_says_wrong_concerns_its_own_messages(adapter, method, mode)

    @pytest.mark.parametrize("mode", ["open", "closed"])
    @pytest.mark.parametrize("method", ["queue_key", "check_waiting"])
    def test_what_waits_beside_it_comes_to_its_end(
        self, adapter: Adapter, method: str, mode: str
    ) -> None:
        """Buffered messages are sent when their time comes: the buffer's thread lives."""
        super().test_what_waits_beside_it_comes_to_its_end(adapter, method, mode)


class TestNonsenseUnderKafka(Selection):
    @pytest.fixture
    def adapter(self, kafka: Broker) -> Adapter:
        return RealKafkaAdapter(kafka.address)


class TestNonsenseUnderRabbitMQ(Selection):
    @pytest.fixture
    def adapter(self, rabbitmq: RabbitMQ) -> Iterator[Adapter]:
        adapter = PublisherAdapter(rabbitmq.address)
        yield adapter
        adapter.end()
