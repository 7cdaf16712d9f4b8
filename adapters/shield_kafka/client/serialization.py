"""Lets kafka-python's `send` take what has been serialized before it was decided on.

A serializer and a partitioner of the user's are wrapped in the producer's configuration, and
only where there are serializers: a producer of plain bytes pays nothing. Each side goes by itself:
a producer may serialize its values alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka.partitioner import Partitioner
from kafka.serializer import Serializer

SERIALIZERS = ("key_serializer", "value_serializer")


class Serialized:
    """A key or value with its bytes: the client takes the bytes, its partitioner the original."""

    __slots__ = ("data", "original")

    def __init__(self, original: Any, data: Any) -> None:
        self.original = original
        self.data = data

    def __repr__(self) -> str:
        return repr(self.original)


class SerializeOnce(Serializer):  # type: ignore[misc] # kafka-python is untyped
    """The user's serializer, or none, which what is serialized already passes unchanged."""

    def __init__(self, serializer: Any) -> None:
        self._serializer = serializer

    def serialize(self, topic: str, *rest: Any) -> Any:
        """Serialize the last argument; kafka-python gives headers before it, or, in need, not."""
        data = rest[-1]
        if type(data) is Serialized:
            return data.data
        return data if self._serializer is None else self._serializer.serialize(topic, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._serializer, name)

    def close(self) -> None:
        """Close the user's serializer, where it can be."""
        if self._serializer is not None:
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
    names = [name for name in SERIALIZERS if config[name] is not None]
    for name in names:
        config[name] = SerializeOnce(config[name])
    if names:
        _accept_in_partitioner(config)
    return bool(names)


def accept_nothing(config: dict[str, Any]) -> None:
    """Let `send` take a message with neither key nor value: others may have written one.

    The client refuses what its user gave no key and no value, and asks that before it serializes.
    """
    if config["value_serializer"] is None:
        _accept_in_partitioner(config)
        config["value_serializer"] = SerializeOnce(None)


def given_by_user(partitioner: Any) -> Any:
    """Return a producer's partitioner as its user gave it."""
    return partitioner._partitioner if type(partitioner) is PartitionOriginals else partitioner


def _accept_in_partitioner(config: dict[str, Any]) -> None:
    partitioner = config["partitioner"]
    if isinstance(partitioner, Partitioner) and not isinstance(partitioner, PartitionOriginals):
        config["partitioner"] = PartitionOriginals(partitioner)


def as_serialized(config: Mapping[str, Any], which: str, data: Any) -> Any:
    """Return bytes, or None, such that the producer does not serialize them again."""
    return data if config[which] is None else Serialized(data, data)
