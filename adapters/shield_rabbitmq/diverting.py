"""Properties of a message that goes another way: what routes or expires it is saved, and back."""

from __future__ import annotations

import copy

from pika import BasicProperties

ROUTING_HEADERS = ("CC", "BCC")
"""They would route a diverted copy to the original queues again."""
EXPIRATION = "shield-original-expiration"
ORIGINAL = ("x-original-exchange", "x-original-routingKey")


def without_routing(
    properties: BasicProperties | None, exchange: str, routing_key: str
) -> BasicProperties:
    """Return properties without what routes or expires, that saved in headers; a copy."""
    result = unrouted(properties)
    headers = result.headers
    if result.expiration is not None:
        headers[EXPIRATION] = result.expiration
        result.expiration = None
    headers.update(zip(ORIGINAL, (exchange, routing_key), strict=True))
    return result


def unrouted(properties: BasicProperties | None) -> BasicProperties:
    """Return properties without what routes beside exchange and key, that saved; a copy."""
    result = _copied(properties)
    headers = result.headers
    for name in ROUTING_HEADERS:
        if name in headers:
            headers[_saved(name)] = headers.pop(name)
    return result


def with_routing(properties: BasicProperties) -> BasicProperties:
    """Return properties as they were before `without_routing`; a copy."""
    result = _copied(properties)
    headers = result.headers
    for name in ROUTING_HEADERS:
        if _saved(name) in headers:
            headers[name] = headers.pop(_saved(name))
    result.expiration = headers.pop(EXPIRATION, result.expiration)
    for name in ORIGINAL:
        headers.pop(name, None)
    return result


def _saved(name: str) -> str:
    return f"shield-original-{name.lower()}"


def _copied(properties: BasicProperties | None) -> BasicProperties:
    result = BasicProperties() if properties is None else copy.copy(properties)
    result.headers = dict(result.headers or {})
    return result
