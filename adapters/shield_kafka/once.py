"""Lets kafka-python's `send` take what has been serialized before it was decided on.

A serializer and a partitioner of the user's are wrapped in the producer's configuration, and
only where there are serializers: a producer of plain bytes pays nothing.
"""

from __future__ import annotations

from typing import Any

from kafka.partitioner import Partitioner
from kafka.serializer import Serializer


class Serialized:
    """A key or value with its bytes: the client takes the bytes, its partitioner the original."""

    __slots__ = ("data", "original")

    def __init__(self, original: Any, data: Any) -> None:
        self.original = original
        self.data = data

    def __repr__(self) -> str:
        return repr(self.original)


class SerializeOnce(Serializer):  # type: ignore[misc] # kafka-python is untyped
    """The user's serializer, which what is serialized already passes unchanged."""

    def __init__(self, serializer: Any) -> None:
        self._serializer = serializer

    def serialize(self, topic: str, *rest: Any) -> Any:
        """Serialize the last argument; kafka-python gives headers before it, or, in need, not."""
        data = rest[-1]
        return data.data if type(data) is Serialized else self._serializer.serialize(topic, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._serializer, name)

    def close(self) -> None:
        """Close the user's serializer, where it can be."""
        self._serializer.close()


class PartitionOriginals(Partitioner):  # type: ignore[misc] # kafka-python is untyped
    """The user's partitioner, given key and value as the user gave them."""

    def __init__(self, partitioner: Any) -> None:
        self._partitioner = partitioner

    def partition(self, topic: str, key: Any, serialized_key: Any, value: Any, *rest: Any) -> Any:
        """Choose a partition."""
        return self._partitioner.partition(
            topic, original_of(key), serialized_key, original_of(value), *rest
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._partitioner, name)


def original_of(data: Any) -> Any:
    """Return a key or value as the user gave it."""
    return data.original if type(data) is Serialized else data


def accept_serialized(config: dict[str, Any]) -> bool:
    """Wrap serializers and partitioner of a producer's configuration; tell whether it has any."""
    names = [name for name in ("key_serializer", "value_serializer") if config[name] is not None]
    for name in names:
        config[name] = SerializeOnce(config[name])
    if names and isinstance(config["partitioner"], Partitioner):
        config["partitioner"] = PartitionOriginals(config["partitioner"])
    return bool(names)
