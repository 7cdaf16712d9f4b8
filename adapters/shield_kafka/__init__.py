"""kafka-python's clients under Shield: change `from kafka import KafkaProducer` to this package.

The client is imported with the first name taken from here, so that Shield can ask this package's
plugin also where kafka-python is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shield_kafka.client.errors import ForkedProducerError, KafkaOverLimitError
    from shield_kafka.consuming.consumer import KafkaConsumer
    from shield_kafka.producing.producer import KafkaProducer

__all__ = ["ForkedProducerError", "KafkaConsumer", "KafkaOverLimitError", "KafkaProducer"]

_MODULES = {
    "ForkedProducerError": "client.errors",
    "KafkaConsumer": "consuming.consumer",
    "KafkaProducer": "producing.producer",
    "KafkaOverLimitError": "client.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
