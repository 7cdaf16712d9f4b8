"""`amqp://` as a place for messages of any client. pika is imported where a URL names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from shield import URL, Envelope, Outcome, Source, Transport
from shield.provisioning import Provisioner
from shield.retention import Retention
from shield.transport import Done

if TYPE_CHECKING:
    from shield_rabbitmq.client.address import RabbitMQAddress
    from shield_rabbitmq.remote.publisher import RemotePublisher

FORM = "amqp://user:password@host:port/vhost/EXCHANGE[/ROUTING_KEY]"


class AmqpTransport(Transport):
    """Publishes to an exchange of a RabbitMQ, or, without one, each message where it was going."""

    scheme = "amqp"
    form = f"{FORM}, where an empty vhost is /"

    def __init__(self, publisher: RemotePublisher, address: RabbitMQAddress) -> None:
        self._publisher = publisher
        self._address = address
        self.signals = publisher.signals
        self.origin = address.origin
        self.roams = address.exchange is None

    @classmethod
    def to(cls, url: URL) -> Transport:
        """Return one for a URL."""
        address = _address_of(url)
        from shield_rabbitmq.remote.publisher import RemotePublisher

        return cls(RemotePublisher(address), address)

    @classmethod
    def source(cls, url: URL) -> Source:
        """Return what takes messages out of a queue: `amqp://host/vhost/QUEUE`."""
        address = _address_of(url)
        names = tuple(name for name in address.names if name)
        if len(names) != 1:
            raise ValueError(f"{url} is to be read; allowed is amqp://host:port/vhost/QUEUE")
        from shield_rabbitmq.remote.source import QueueSource

        return QueueSource(address, names[0])

    @classmethod
    def reaches(cls, envelope: Envelope) -> Iterator[str]:
        """Return where it goes, and where its CC and BCC say that copies go."""
        from shield_rabbitmq.client.envelopes import reached_by

        return reached_by(envelope)

    @classmethod
    def home(cls, url: URL) -> URL:
        """Return the broker and its virtual host."""
        return replace(url, path=url.path.partition("/")[0])

    @classmethod
    def setup(cls, url: URL, partitions: int | None) -> tuple[Provisioner, str]:  # noqa: ARG003
        """Return what makes exchanges and queues on the URL's broker, and its exchange there.

        As an overflow action on that broker would name it: `EXCHANGE[/ROUTING_KEY]`, `/QUEUE`.
        """
        address = _address_of(url)
        from shield_rabbitmq.client.address import broker_url
        from shield_rabbitmq.operations.broker_address import BrokerAddress
        from shield_rabbitmq.operations.provisioning import RabbitMQProvisioner

        return RabbitMQProvisioner(BrokerAddress(broker_url(url), hint="")), "/".join(address.names)

    def keeps(self, envelope: Envelope) -> Retention | None:
        """Return what a queue keeps that it sends to by the default exchange."""
        if self._address.exchange is not None or envelope.exchange or envelope.kind != "amqp":
            return None
        from shield_rabbitmq.operations.retention import keeps

        return keeps(self._address.parameters, envelope.destination)

    def send(self, envelope: Envelope, done: Done) -> None:
        """Publish with properties and headers; also those that AMQP has no field for."""
        self._publisher.send(envelope, done)

    def outcome_of(self, error: Exception) -> Outcome:
        """Tell overload from all other errors."""
        return self._publisher.outcome_of(error)

    def is_hopeless(self, error: Exception) -> bool:
        """Tell what RabbitMQ refuses of the message itself, or cannot be encoded."""
        return isinstance(error, TypeError | ValueError)

    is_faulty = is_hopeless

    def close(self, timeout_s: float) -> None:
        """Return when every message is confirmed; fail what is not in time."""
        self._publisher.close(timeout_s)


def _address_of(url: URL) -> RabbitMQAddress:
    if find_spec("pika") is None:
        raise ValueError(f"{url.scheme}:// needs pika: pip install 'broker-shield[rabbitmq]'")
    from shield_rabbitmq.client.address import address_of

    return address_of(url)
