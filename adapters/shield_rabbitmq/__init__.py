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
    from shield_rabbitmq.client import Publisher
    from shield_rabbitmq.connections import BlockingConnection, SelectConnection
    from shield_rabbitmq.consumer_get import wait_for_message
    from shield_rabbitmq.decorator import publisher
    from shield_rabbitmq.errors import (
        CannotConnectError,
        DeliveryUnknownError,
        ExchangeError,
        ForkedPublisherError,
        NackedError,
        OverLimitError,
        PublisherClosedError,
        RefusedError,
        ReturnedError,
    )
    from shield_rabbitmq.publishing import Publishing
    from shield_rabbitmq.shielded import shielded

__all__ = [
    "BlockingConnection",
    "CannotConnectError",
    "DeliveryUnknownError",
    "ExchangeError",
    "ForkedPublisherError",
    "NackedError",
    "OverLimitError",
    "Publisher",
    "PublisherClosedError",
    "Publishing",
    "RefusedError",
    "ReturnedError",
    "SelectConnection",
    "publisher",
    "shielded",
    "wait_for_message",
]

_MODULES = {
    "BlockingConnection": "connections",
    "CannotConnectError": "errors",
    "DeliveryUnknownError": "errors",
    "ExchangeError": "errors",
    "ForkedPublisherError": "errors",
    "NackedError": "errors",
    "OverLimitError": "errors",
    "Publisher": "client",
    "PublisherClosedError": "errors",
    "RefusedError": "errors",
    "Publishing": "publishing",
    "ReturnedError": "errors",
    "SelectConnection": "connections",
    "publisher": "decorator",
    "shielded": "shielded",
    "wait_for_message": "consumer_get",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
