"""A message with AMQP's properties, as it is kept or carried elsewhere, and back."""

from __future__ import annotations

from collections.abc import Iterator

from shield import Envelope
from shield.headers import DESTINATION, ROUTING_KEY
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.client.properties import (
    Marks,
    brought_back,
    now_ms,
    of_life,
    plain,
    sendable,
    set_aside,
)
from shield_rabbitmq.client.raw_properties import DELIVERY_MODE, TIMESTAMP, Encoded, value_of

LONGEST_NAME = 128
"""Bytes of a header's name; a longer one is kept in `shield-original-headers` alone."""
LAST_S = 253_402_300_799
"""The last second of the year 9999; what is later stands in its properties alone."""
PERSISTENT = b"\x02"


def envelope_of(frames: Frames, properties: Encoded, producer: str) -> Envelope:
    """Return the whole message, with its `kept` properties."""
    own, marks = of_life(properties)
    return _envelope(frames.destination, frames.routing_key, frames.body, own, marks, producer)


def stored_envelope(exchange: str, routing_key: str, body: bytes, properties: Encoded) -> Envelope:
    """Return the whole message that a queue held, with what was saved from its properties."""
    own, marks = brought_back(properties)
    destination = f"{exchange}/{routing_key}" if exchange else routing_key
    return _envelope(destination, routing_key, body, own, marks, "")


def _envelope(
    destination: str, routing_key: str, body: bytes, own: Encoded, marks: Marks, producer: str
) -> Envelope:
    users, optional, _ = plain(own)
    seconds = users.timestamp
    return Envelope(
        destination=destination,
        body=body,
        kind="amqp",
        headers=tuple((_name(n), _as_bytes(value_of(v))) for n, v in users.headers or ()),
        routing_key=routing_key,
        timestamp_ms=None if seconds is None or seconds > LAST_S else seconds * 1000,
        native=b"".join(own.encode()),
        mandatory=optional != "false",
        producer=producer,
        marks=marks,
    )


def frames_of(envelope: Envelope) -> Frames:
    """Return what goes on the wire, where the envelope says.

    Raises:
        ExpiredError: it is too late for that.
        ValueError, TypeError: AMQP cannot hold it.
    """
    routing_key = envelope.destination if envelope.routing_key is None else envelope.routing_key
    body = envelope.body or b""
    if DESTINATION in dict(envelope.marks):  # it goes to be parked
        return Frames(envelope.exchange, routing_key, body, diverted(envelope), mandatory=True)
    properties, mandatory = sendable(kept_properties(envelope), now_ms())
    properties.add_texts(_marks(envelope).items())
    return Frames(envelope.exchange, routing_key, body, properties, mandatory)


def diverted(envelope: Envelope) -> Encoded:
    """Return an envelope's properties for where it is set aside, with all of its marks."""
    marks = _marks(envelope)
    if DESTINATION in marks:
        return set_aside(kept_properties(envelope), marks)
    going = {DESTINATION: envelope.destination}
    if envelope.routing_key is not None:
        going[ROUTING_KEY] = envelope.routing_key
    properties = set_aside(kept_properties(envelope), going | marks)
    for name in going:  # it comes back to where it is sent, and to nowhere else
        properties.pop_text(name)
    return properties


def reached_by(envelope: Envelope) -> Iterator[str]:
    """Yield all destinations of a message: its own, and those in CC and BCC.

    Raises whatever it likes where its properties are none.
    """
    yield envelope.destination
    if b"CC" not in envelope.native:  # nearly all
        return
    for name, value in Encoded.parse(envelope.native).headers or ():
        if name in (b"CC", b"BCC"):
            for key in _keys(value_of(value)):
                yield f"{envelope.exchange}/{key}" if envelope.exchange else key


def _keys(found: object) -> list[str]:
    """Return the routing keys of a CC; the broker takes nothing but a list of texts."""
    if not isinstance(found, list):
        raise TypeError("CC is no list")
    return [key.decode() if isinstance(key, bytes) else str(key) for key in found]


def kept_properties(envelope: Envelope) -> Encoded:
    """Return an envelope's own properties; persistent where it brings none."""
    if envelope.kind == "amqp" and envelope.native:
        return Encoded.parse(envelope.native)
    result = Encoded({DELIVERY_MODE: PERSISTENT})
    if envelope.timestamp_ms is not None and envelope.timestamp_ms >= 0:
        result.fields[TIMESTAMP] = (envelope.timestamp_ms // 1000).to_bytes(8, "big")
    result.add_values(pair for pair in envelope.headers if len(pair[0].encode()) <= LONGEST_NAME)
    return result


def _marks(envelope: Envelope) -> dict[str, str]:
    """Return our headers, with those that keep what AMQP has no field for."""
    beyond = envelope.foreign_headers("amqp")[len(envelope.all_headers()) :]
    return dict(envelope.marks) | {name: str(value or b"", "utf-8") for name, value in beyond}


def _name(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _as_bytes(value: object) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value).encode()
