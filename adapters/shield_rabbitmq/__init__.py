"""pika under Shield: quotas, load shedding and pipelined confirms for RabbitMQ.

`@publisher` decorates a function that makes a message, `Publisher` takes messages from any thread
and writes them through one. Each message is confirmed by the broker. `shielded` puts quotas around
a pika channel, or on a function that is handed one; the channels of `BlockingConnection` and
`SelectConnection`, drop-ins for pika's, have them from the start.

pika is imported with the first name taken from here, so that Shield can ask this package's plugin
also where pika is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shield_rabbitmq.channels.connections import BlockingConnection, SelectConnection
    from shield_rabbitmq.channels.decorator import shielded
    from shield_rabbitmq.client.errors import (
        CannotConnectError,
        ExchangeError,
        ForkedPublisherError,
        NackedError,
        PublisherClosedError,
        RabbitMQDeliveryUnknownError,
        RabbitMQOverLimitError,
        RefusedError,
        ReturnedError,
    )
    from shield_rabbitmq.consuming.get import wait_for_message
    from shield_rabbitmq.publishing.decorator import publisher
    from shield_rabbitmq.publishing.properties import Publishing
    from shield_rabbitmq.publishing.publisher import Publisher

__all__ = [
    "BlockingConnection",
    "CannotConnectError",
    "ExchangeError",
    "ForkedPublisherError",
    "NackedError",
    "Publisher",
    "PublisherClosedError",
    "Publishing",
    "RabbitMQDeliveryUnknownError",
    "RabbitMQOverLimitError",
    "RefusedError",
    "ReturnedError",
    "SelectConnection",
    "publisher",
    "shielded",
    "wait_for_message",
]

_MODULES = {
    "BlockingConnection": "channels.connections",
    "CannotConnectError": "client.errors",
    "RabbitMQDeliveryUnknownError": "client.errors",
    "ExchangeError": "client.errors",
    "ForkedPublisherError": "client.errors",
    "NackedError": "client.errors",
    "RabbitMQOverLimitError": "client.errors",
    "Publisher": "publishing.publisher",
    "PublisherClosedError": "client.errors",
    "RefusedError": "client.errors",
    "Publishing": "publishing.properties",
    "ReturnedError": "client.errors",
    "SelectConnection": "channels.connections",
    "publisher": "publishing.decorator",
    "shielded": "channels.decorator",
    "wait_for_message": "consuming.get",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
