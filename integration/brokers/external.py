"""Brokers that already run and belong to someone else: used, never started, stopped or broken."""

from abc import abstractmethod
from typing import ClassVar, NoReturn
from urllib.parse import urlsplit

from integration.brokers.broker import Broker, BrokerError, RabbitMQ, Way
from integration.brokers.ready import amqp_answers, kafka_answers, redis_answers, wait_until

_ANSWERS_WITHIN_S = 30.0


class _ExternalBroker(Broker):
    way: Way = "external"
    variable: ClassVar[str]

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def answers(self) -> bool:
        """Whether it works."""

    def start(self) -> None:
        name = f"the broker at {self.variable}={self.address}"
        wait_until(self.answers, name=name, within_s=_ANSWERS_WITHIN_S)

    def stop(self) -> None:
        """Leave it running: it is not ours."""

    def kill(self) -> None:
        self._refuse("killed")

    def restart(self) -> None:
        self._refuse("restarted")

    def pause(self) -> None:
        self._refuse("paused")

    def resume(self) -> None:
        self._refuse("resumed")

    def _refuse(self, fault: str) -> NoReturn:
        raise BrokerError(
            f"the broker at {self.variable} is not ours to be {fault}:"
            " a test that needs this starts one of its own with private(...)"
        )


class ExternalKafka(_ExternalBroker):
    """The Kafka that SHIELD_TEST_KAFKA=host:port names."""

    variable = "SHIELD_TEST_KAFKA"

    def answers(self) -> bool:
        return kafka_answers(self.address)


class ExternalRabbitMQ(_ExternalBroker, RabbitMQ):
    """The RabbitMQ that SHIELD_TEST_AMQP=amqp://... names, its management at the usual port."""

    variable = "SHIELD_TEST_AMQP"

    def __init__(self, address: str) -> None:
        super().__init__(address)
        url = urlsplit(address)
        login = f"{url.username or 'guest'}:{url.password or 'guest'}"
        self.management_url = f"http://{login}@{url.hostname}:15672"

    def answers(self) -> bool:
        return amqp_answers(self.address)

    def ctl(self, *arguments: str) -> str:
        self._refuse("run by rabbitmqctl")


class ExternalRedis(_ExternalBroker):
    """The Redis that SHIELD_TEST_REDIS=redis://... names."""

    variable = "SHIELD_TEST_REDIS"

    def answers(self) -> bool:
        return redis_answers(self.address)
