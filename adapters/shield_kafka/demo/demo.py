"""`shield demo` on Kafka: kafka-python's producers under Shield, librdkafka to read back."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from kafka.errors import KafkaError

from shield import Shield, ShieldError, UnavailableError
from shield.demo import Demo
from shield_kafka.demo.embedded import API_VERSION, EmbeddedKafka
from shield_kafka.demo.readback import KafkaReadback
from shield_kafka.producing.producer import KafkaProducer

REACH_S = 5.0
PARTITIONS = 4


class KafkaDemo(Demo[Shield]):
    """An embedded Kafka, or the real one at `bootstrap`.

    A real one's topics are made where they are missing, and kept. Every message of a run has the
    run's own id in a header, so that older messages, and another run beside it, are not counted.
    """

    orders = "shield-demo.orders"
    overflow = "shield-demo.overflow"
    audit = "shield-demo.audit"
    next_steps = {
        "shield demo --bootstrap HOST:PORT": "the same on a real broker",
        "from shield_kafka import KafkaProducer": "the one line to change",
    }

    def __init__(self, bootstrap: str | None) -> None:
        self._bootstrap = bootstrap
        self._run = ("shield-demo-run", uuid.uuid4().hex.encode())
        self._configs: dict[str, Any] = {"linger_ms": 5, "max_block_ms": 5000}

    def __enter__(self) -> Self:
        """Start the embedded Kafka, or reach the real one and make its topics."""
        if self._bootstrap is None:
            self._embedded = EmbeddedKafka()
            self.title = "an embedded Kafka"
            bootstrap = self._embedded.bootstrap
            self._configs["api_version"] = API_VERSION
        else:
            bootstrap = self._bootstrap
            self.title = f"Kafka at {bootstrap}"
        self._configs["bootstrap_servers"] = bootstrap
        try:
            self._readback = KafkaReadback(bootstrap, self._topics(bootstrap), self._run)
        except KafkaException as error:
            raise _unusable(bootstrap, error) from error
        _silence(logging.CRITICAL)
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect; the embedded Kafka ends with this object."""
        self._readback.close()
        _silence(logging.NOTSET)

    def producer(self, shield: Shield, name: str, destination: str) -> _Producer:
        """Return the drop-in class at work."""
        try:
            return _Producer(shield, name, destination, self._run, self._configs)
        except KafkaError as error:
            raise UnavailableError(
                f"kafka-python cannot connect to {self.title}: {error}"
            ) from error

    def count(self, destination: str) -> int:
        """Read the topic on to its end."""
        try:
            return self._readback.count(destination)
        except KafkaException as error:
            raise _unusable(self._configs["bootstrap_servers"], error) from error

    def _topics(self, bootstrap: str) -> dict[str, list[int]]:
        """Return the partitions of each topic, once all of them can be written to."""
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        names = (self.orders, self.overflow, self.audit)
        missing = [name for name in names if name not in admin.list_topics(timeout=REACH_S).topics]
        if self._bootstrap is not None and missing:
            _make(admin, missing)
        return {name: _partitions(admin, name) for name in names}


class _Producer:
    """One `shield_kafka.KafkaProducer` whose messages carry the run's id."""

    def __init__(
        self,
        shield: Shield,
        name: str,
        topic: str,
        run: tuple[str, bytes],
        configs: dict[str, Any],
    ) -> None:
        self._topic = topic
        self._run = run
        self._client = KafkaProducer(shield=shield, shield_producer=name, **configs)

    def send(self, body: bytes) -> object:
        return self._client.send(self._topic, body, headers=[self._run])

    def close(self) -> None:
        self._client.close(timeout=10)


def _make(admin: AdminClient, names: list[str]) -> None:
    """Create topics; another demo may have made them meanwhile, and the next step looks."""
    made = admin.create_topics(
        [NewTopic(name, PARTITIONS, -1) for name in names], operation_timeout=REACH_S
    )
    for future in made.values():
        future.exception()


def _partitions(admin: AdminClient, name: str) -> list[int]:
    """Return a topic's partitions when each has a leader; asking makes it where brokers do that."""
    give_up = time.monotonic() + REACH_S
    while time.monotonic() < give_up:
        topic = admin.list_topics(name, timeout=REACH_S).topics[name]
        if topic.partitions and all(p.leader >= 0 for p in topic.partitions.values()):
            return list(topic.partitions)
        time.sleep(0.05)
    raise ShieldError(f"topic {name!r} is not there and could not be made: {topic.error}")


def _unusable(where: str, error: KafkaException) -> ShieldError:
    return UnavailableError(f"no Kafka answers at {where}: {error.args[0].str()}")


def _silence(level: int) -> None:
    """Keep kafka-python's log off the screen, or let it be again."""
    logging.getLogger("kafka").setLevel(level)
