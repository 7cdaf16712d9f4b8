"""Brokers in containers, through testcontainers.

A container that is killed and started again gets a new random host port, which Kafka would not
know of, so each is bound to a port chosen beforehand.
"""

import os
import warnings
from abc import abstractmethod
from contextlib import ExitStack
from functools import cache

from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from integration.brokers.broker import Broker, BrokerError, RabbitMQ, Setting, Way
from integration.brokers.kafka_settings import kafka_settings
from integration.brokers.ports import free_ports
from integration.brokers.ready import amqp_answers, kafka_answers, redis_answers, wait_until
from integration.brokers.redis_settings import REDIS_KEEPS_DATA

with warnings.catch_warnings():
    # testcontainers 4.15's own rabbitmq module uses a decorator that testcontainers deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from testcontainers.community.kafka import KafkaContainer
    from testcontainers.community.rabbitmq import RabbitMqContainer
    from testcontainers.community.redis import RedisContainer

_ANSWERS_WITHIN_S = 180.0


@cache
def engine_answers() -> bool:
    """Whether a Docker engine answers, asked once per process."""
    try:
        client = DockerClient().client
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except DockerException:
        return False
    finally:
        client.close()


class _DockerBroker(Broker):
    way: Way = "docker"

    def __init__(self, container: DockerContainer, port: int) -> None:
        (self._host_port,) = free_ports(1)
        self._container = container.with_bind_ports(port, self._host_port)
        self._is_started = self._is_paused = False

    @abstractmethod
    def locate(self, host: str, port: int) -> None:
        """Set the address; inside a container the engine's host is known only after the start."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it works."""

    def start(self) -> None:
        self._is_started = True
        with ExitStack() as on_failure:
            on_failure.callback(self.stop)
            self._run()
            self.locate(self._container.get_container_host_ip(), self._host_port)
            self._wait()
            on_failure.pop_all()

    def stop(self) -> None:
        if not self._is_started:
            return
        self._is_started = False
        if self._is_paused:
            self.resume()
        self._container.stop()

    def kill(self) -> None:
        container = self._container.get_wrapped_container()
        container.kill()
        container.wait()

    def restart(self) -> None:
        self._container.get_wrapped_container().start()
        self._wait()

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()
        self._is_paused = True

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()
        self._is_paused = False

    def _run(self) -> None:
        try:
            self._container.start()
        except DockerException as error:
            raise BrokerError(
                f"Docker cannot run {self._container.image}: {error}\n"
                "SHIELD_TEST_BROKERS=native does without Docker."
            ) from error

    def _wait(self) -> None:
        wait_until(self.answers, name=self._container.image, within_s=_ANSWERS_WITHIN_S)


class DockerKafka(_DockerBroker):
    """One Kafka node in KRaft mode; SHIELD_TEST_KAFKA_IMAGE names another image."""

    def __init__(self, **overrides: Setting) -> None:
        image = os.environ.get("SHIELD_TEST_KAFKA_IMAGE", "confluentinc/cp-kafka:7.6.0")
        container = KafkaContainer(image).with_kraft()
        for name, value in kafka_settings(overrides).items():
            container.with_env(f"KAFKA_{name.replace('.', '_').upper()}", value)
        super().__init__(container, container.port)

    def locate(self, host: str, port: int) -> None:
        self.address = f"{host}:{port}"

    def answers(self) -> bool:
        return kafka_answers(self.address)


class DockerRabbitMQ(_DockerBroker, RabbitMQ):
    """RabbitMQ with the management plugin; SHIELD_TEST_RABBITMQ_IMAGE names another image."""

    def __init__(self) -> None:
        image = os.environ.get("SHIELD_TEST_RABBITMQ_IMAGE", "rabbitmq:3-management")
        container = RabbitMqContainer(image)
        (self._management_port,) = free_ports(1)
        container.with_bind_ports(15672, self._management_port)
        super().__init__(container, container.port)

    def locate(self, host: str, port: int) -> None:
        self.address = f"amqp://guest:guest@{host}:{port}/%2F"
        self.management_url = f"http://guest:guest@{host}:{self._management_port}"

    def answers(self) -> bool:
        return amqp_answers(self.address)

    def ctl(self, *arguments: str) -> str:
        result = self._container.exec(["rabbitmqctl", *arguments])
        output = result.output.decode()
        if result.exit_code:
            raise BrokerError(f"rabbitmqctl {' '.join(arguments)} failed: {output}")
        return output


class DockerRedis(_DockerBroker):
    """Redis; SHIELD_TEST_REDIS_IMAGE names another image."""

    def __init__(self) -> None:
        image = os.environ.get("SHIELD_TEST_REDIS_IMAGE", "redis:7")
        container = RedisContainer(image).with_command(["redis-server", *REDIS_KEEPS_DATA])
        super().__init__(container, container.port)

    def locate(self, host: str, port: int) -> None:
        self.address = f"redis://{host}:{port}/0"

    def answers(self) -> bool:
        return redis_answers(self.address)
