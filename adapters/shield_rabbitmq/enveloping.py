"""A message with AMQP's properties, as it is kept or carried elsewhere, and back."""

from __future__ import annotations

import copy
from typing import Any

from pika import BasicProperties

from shield import Envelope
from shield.envelope import split_headers
from shield_rabbitmq.parcel import Parcel

LONGEST_NAME = 128
"""Bytes of a header's name; a longer one is kept in `shield-original-headers` alone."""


def envelope_of(parcel: Parcel, properties: BasicProperties | None, producer: str) -> Envelope:
    """Return the whole message; its properties are kept as they go on the wire."""
    headers: dict[str, Any] = {} if properties is None else properties.headers or {}
    own, marks = split_headers(tuple((name, _as_bytes(value)) for name, value in headers.items()))
    plain = BasicProperties() if properties is None else copy.copy(properties)
    plain.headers = {name: headers[name] for name, _ in own} or None
    return Envelope(
        destination=parcel.destination,
        body=parcel.body,
        kind="amqp",
        headers=own,
        routing_key=parcel.routing_key,
        timestamp_ms=None if plain.timestamp is None else int(plain.timestamp) * 1000,
        native=b"".join(plain.encode()),
        mandatory=parcel.mandatory,
        producer=producer,
        marks=marks,
    )


def properties_of(envelope: Envelope) -> BasicProperties:
    """Return an envelope's own properties with its marks; persistent where it brings none."""
    if envelope.kind == "amqp" and envelope.native:
        properties = BasicProperties()
        properties.decode(envelope.native)
        properties.headers = {**(properties.headers or {}), **dict(envelope.marks)} or None
        return properties
    headers = {
        name: _as_text(value)
        for name, value in envelope.foreign_headers("amqp")
        if len(name.encode()) <= LONGEST_NAME
    }
    seconds = None if envelope.timestamp_ms is None else envelope.timestamp_ms // 1000
    return BasicProperties(delivery_mode=2, headers=headers or None, timestamp=seconds)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _as_text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
