"""What this adapter contributes through Shield's hooks. Imports no client until it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shield import Shield, ShieldError, Transport, hookimpl
from shield.demo import Demo
from shield.provisioning import Provisioner
from shield_kafka.remote.transport import KafkaTransport


def kafka_demo(bootstrap: str | None) -> Demo[Shield]:
    """Return the demo on a real Kafka, or on an embedded one.

    Raises:
        ShieldError: the clients are not installed.
    """
    try:
        from shield_kafka.demo.demo import KafkaDemo
    except ImportError as error:
        raise ShieldError(
            f"the demo needs kafka-python and confluent-kafka ({error}): "
            "pip install 'broker-shield[all]'"
        ) from error
    return KafkaDemo(bootstrap)


def kafka_setup(bootstrap: str | None, partitions: int | None) -> Provisioner:
    """Return what makes topics on the Kafka there.

    Raises:
        ShieldError: kafka-python is not installed.
    """
    try:
        from shield_kafka.operations.provisioning import KafkaProvisioner, address_at
    except ImportError as error:
        raise ShieldError(
            f"setting up Kafka needs kafka-python ({error}): pip install 'broker-shield[kafka]'"
        ) from error
    hint = "; name yours with --bootstrap HOST:PORT"
    return KafkaProvisioner(address_at(bootstrap), partitions, hint)


@hookimpl
def shield_demos() -> Mapping[str, Callable[[str | None], Demo[Shield]]]:
    """Contribute `shield demo --broker kafka`."""
    return {"kafka": kafka_demo}


@hookimpl
def shield_setups() -> Mapping[str, Callable[[str | None, int | None], Provisioner]]:
    """Contribute `shield setup --broker kafka`."""
    return {"kafka": kafka_setup}


@hookimpl
def shield_transports() -> Mapping[str, type[Transport]]:
    """Contribute `overflow kafka://host:port/topic`."""
    return {"kafka": KafkaTransport}
