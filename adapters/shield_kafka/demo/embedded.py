"""A Kafka inside this process: librdkafka's mock cluster, from the confluent-kafka wheel."""

from __future__ import annotations

import confluent_kafka

API_VERSION = (2, 3)
"""What kafka-python must be told about it; asking fails (3.0.12)."""


class EmbeddedKafka:
    """One broker that speaks Kafka over real TCP and ends with this object.

    It makes topics of four partitions on first use, serves groups and transactions, and keeps
    5 MB or 100,000 messages a partition. It has no admin requests and never throttles.
    """

    def __init__(self) -> None:
        self._cluster = confluent_kafka.Producer(
            {"bootstrap.servers": "embedded:1", "test.mock.num.brokers": 1, "log_level": 0}
        )
        brokers = self._cluster.list_topics(timeout=10).brokers.values()
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
