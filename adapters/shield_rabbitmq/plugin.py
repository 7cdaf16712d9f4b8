"""What this adapter contributes through Shield's hooks. Imports no client until it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shield import SettingsError, Shield, ShieldError, Transport, hookimpl
from shield.demo import Demo
from shield.provisioning import Provisioner
from shield_rabbitmq.remote.transport import AmqpTransport


def rabbitmq_demo(address: str | None) -> Demo[Shield]:
    """Return the demo on the RabbitMQ at that URL or HOST:PORT, or at the usual place.

    Raises:
        ShieldError: pika is not installed.
    """
    try:
        from shield_rabbitmq.demo.demo import RabbitMQDemo
    except ImportError as error:
        raise _no_pika("the demo on RabbitMQ", error) from error
    return RabbitMQDemo(address)


def rabbitmq_setup(address: str | None, partitions: int | None) -> Provisioner:
    """Return what makes exchanges and queues on the RabbitMQ at that URL or HOST:PORT.

    Raises:
        ShieldError: pika is not installed.
        SettingsError: there is nothing that could have partitions.
    """
    try:
        from shield_rabbitmq.operations.broker_address import BrokerAddress
        from shield_rabbitmq.operations.provisioning import RabbitMQProvisioner
    except ImportError as error:
        raise _no_pika("setting up RabbitMQ", error) from error
    if partitions is not None:
        raise SettingsError(
            f"--partitions: found {partitions}; RabbitMQ's exchanges and queues have none"
        )
    return RabbitMQProvisioner(BrokerAddress(address))


def _no_pika(what: str, error: ImportError) -> ShieldError:
    return ShieldError(f"{what} needs pika ({error}): pip install 'broker-shield[rabbitmq]'")


@hookimpl
def shield_demos() -> Mapping[str, Callable[[str | None], Demo[Shield]]]:
    """Contribute `shield demo --broker rabbitmq`."""
    return {"rabbitmq": rabbitmq_demo}


@hookimpl
def shield_setups() -> Mapping[str, Callable[[str | None, int | None], Provisioner]]:
    """Contribute `shield setup --broker rabbitmq`."""
    return {"rabbitmq": rabbitmq_setup}


@hookimpl
def shield_transports() -> Mapping[str, type[Transport]]:
    """Contribute `overflow amqp://host:port/vhost/EXCHANGE`."""
    return {"amqp": AmqpTransport, "amqps": AmqpTransport}
