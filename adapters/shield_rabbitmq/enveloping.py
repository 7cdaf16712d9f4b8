"""A message with AMQP's properties, as it is kept or carried elsewhere, and back."""

from __future__ import annotations

import copy
from typing import Any

from pika import BasicProperties

from shield import Envelope
from shield.envelope import split_headers
from shield_rabbitmq.parcel import Parcel


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
    properties = BasicProperties(delivery_mode=2)
    if envelope.native:
        properties = BasicProperties()
        properties.decode(envelope.native)
    else:
        properties.headers = {name: _as_text(value) for name, value in envelope.headers}
    properties.headers = {**(properties.headers or {}), **dict(envelope.marks)} or None
    return properties


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _as_text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
