"""kafka-python's clients under Shield: change `from kafka import KafkaProducer` to this package.

The client is imported with the first name taken from here, so that Shield can ask this package's
plugin also where kafka-python is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shield_kafka.consumer import KafkaConsumer
    from shield_kafka.errors import ForkedProducerError, OverLimitError
    from shield_kafka.producer import KafkaProducer

__all__ = ["ForkedProducerError", "KafkaConsumer", "KafkaProducer", "OverLimitError"]

_MODULES = {
    "ForkedProducerError": "errors",
    "KafkaConsumer": "consumer",
    "KafkaProducer": "producer",
    "OverLimitError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
