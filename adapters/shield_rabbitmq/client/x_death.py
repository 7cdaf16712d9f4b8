"""RabbitMQ's own dead letters: where a message was going stands in a table of its first death.

The broker's headers about that are not sent on: they are its own to write, and a broker that finds
them in what is published may take the message for one that goes in circles, and drop it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shield import Envelope
from shield.dead_letters import BROKERS_OWN, DEATH_KEY, EXCHANGE
from shield.headers import DESTINATION
from shield_rabbitmq.client.raw_properties import Encoded

DEATHS = "x-death"
_NAMES = frozenset(name.encode() for name in BROKERS_OWN)


def with_origin(envelope: Envelope, headers: Mapping[str, Any] | None) -> Envelope:
    """Return a dead letter of the broker's with headers that say where it was first going.

    What Shield has set aside, and what has not died, is returned as it is.
    """
    if not headers or DEATHS not in headers or DESTINATION in dict(envelope.marks):
        return envelope
    properties = Encoded.parse(envelope.native)
    properties.headers = [pair for pair in properties.headers or () if pair[0] not in _NAMES]
    own = [pair for pair in envelope.headers if pair[0] not in BROKERS_OWN]
    origin = origin_of(headers)
    if origin is not None:
        own += zip((EXCHANGE, DEATH_KEY), (text.encode() for text in origin), strict=True)
    native = b"".join(properties.encode())
    return replace(envelope, headers=tuple(own), native=native)


def origin_of(headers: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return exchange and routing key of the first death; None where they do not stand there."""
    death = _first(headers)
    exchange, keys = death.get("exchange"), death.get("routing-keys")
    if not isinstance(exchange, str) or not isinstance(keys, list) or not keys:
        return None
    return (exchange, keys[0]) if isinstance(keys[0], str) else None


def _first(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the table of the first death: the one that the broker names, else the last."""
    deaths = headers[DEATHS]
    tables = [each for each in deaths if isinstance(each, dict)] if isinstance(deaths, list) else []
    named = headers.get("x-first-death-queue"), headers.get("x-first-death-reason")
    for table in tables:
        if (table.get("queue"), table.get("reason")) == named:
            return table
    return tables[-1] if tables else {}
