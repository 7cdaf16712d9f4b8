"""What an overflow destination is made of, where Shield makes it.

A durable topic exchange and a durable queue of the same name, bound for every routing key, so
that no message is unroutable there. What is there already under one of these names and differs
is left alone: the broker refuses to declare it anew, and its reply says what differs.
"""

from __future__ import annotations

EXCHANGE_TYPE = "topic"
EVERY_KEY = "#"


def parts_of(destination: str) -> tuple[str, str]:
    """Return exchange and queue of `EXCHANGE[/ROUTING_KEY]`; the default exchange has no name."""
    exchange, _, routing_key = destination.partition("/")
    return exchange, exchange or routing_key
