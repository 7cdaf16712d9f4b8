"""Real brokers for tests and benchmarks: `shared(KAFKA)`, `private(RABBITMQ)`, `shared(REDIS)`.

Each broker comes by the first of three ways that is open, decided for each broker apart:

1. external: the variable SHIELD_TEST_KAFKA=host:port, SHIELD_TEST_AMQP=amqp://... or
   SHIELD_TEST_REDIS=redis://... names one that already runs (tests that kill a member of a Kafka
   group need group.min.session.timeout.ms=3000 or less there, and say so);
2. docker: testcontainers, where a Docker engine answers;
3. native: processes that this package installs, starts on free ports of 127.0.0.1 and stops.

SHIELD_TEST_BROKERS=docker or =native forces that way for all of them, whatever else is set.

    with private(KAFKA, auto_create_topics_enable=False) as kafka:
        KafkaProducer(bootstrap_servers=kafka.address)
        kafka.kill()
        kafka.restart()
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from integration.brokers import docker, external, native
from integration.brokers.broker import Broker, BrokerError, RabbitMQ, Setting, Way
from integration.brokers.topics import create_topic

__all__ = [
    "ALL",
    "KAFKA",
    "RABBITMQ",
    "REDIS",
    "Broker",
    "BrokerError",
    "Kind",
    "RabbitMQ",
    "Way",
    "create_topic",
    "private",
    "shared",
]

FORCE = "SHIELD_TEST_BROKERS"

B_co = TypeVar("B_co", bound=Broker, covariant=True)


@dataclass(frozen=True)
class Kind(Generic[B_co]):
    """One kind of broker and its three ways; `variable` holds the address of an external one."""

    name: str
    variable: str
    external: Callable[[str], B_co]
    docker: Callable[..., B_co]
    native: Callable[..., B_co]


KAFKA: Kind[Broker] = Kind(
    "kafka", "SHIELD_TEST_KAFKA", external.ExternalKafka, docker.DockerKafka, native.NativeKafka
)
RABBITMQ: Kind[RabbitMQ] = Kind(
    "rabbitmq",
    "SHIELD_TEST_AMQP",
    external.ExternalRabbitMQ,
    docker.DockerRabbitMQ,
    native.NativeRabbitMQ,
)
REDIS: Kind[Broker] = Kind(
    "redis", "SHIELD_TEST_REDIS", external.ExternalRedis, docker.DockerRedis, native.NativeRedis
)
ALL: tuple[Kind[Broker], ...] = (KAFKA, RABBITMQ, REDIS)


def shared(kind: Kind[B_co]) -> B_co:
    """A broker that others may use as well, not started yet: break nothing in it."""
    address = os.environ.get(kind.variable)
    if address and not _forced():
        return kind.external(address)
    return private(kind)


def private(kind: Kind[B_co], **settings: Setting) -> B_co:
    """A broker of the caller's own, not started yet: it may be killed and paused.

    Kafka takes its broker's settings here, with `_` for each dot.
    """
    if _own_way() == "docker":
        return kind.docker(**settings)
    return kind.native(**settings)


def _own_way() -> Way:
    return _forced() or ("docker" if docker.engine_answers() else "native")


def _forced() -> Way | None:
    match os.environ.get(FORCE, ""):
        case "":
            return None
        case "native":
            return "native"
        case "docker" if docker.engine_answers():
            return "docker"
        case "docker":
            raise BrokerError(
                f"{FORCE}=docker, but no Docker engine answers: start one (DOCKER_HOST says where"
                f" it listens), or set {FORCE}=native"
            )
        case other:
            raise BrokerError(f"{FORCE}={other!r}: allowed are 'docker', 'native' or nothing")
