"""The publishers that carry what leaves users' channels: one for each broker, Shield and name.

A relay is made when it is first needed, and closed when the last connection that has used it is:
on a thread of its own, for it waits until all is confirmed, and an event loop must not.
"""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import Any

from shield import Shield
from shield.process_hooks import EXIT_WITHIN_S, ForkStage, after_fork
from shield_rabbitmq.client import internals
from shield_rabbitmq.publishing.publisher import Publisher

_lock = threading.Lock()
_relays: list[Relay] = []


class Relay:
    """One publisher and the connections that use it."""

    def __init__(self, connection: Any, shield: Shield, producer: str) -> None:
        parameters = internals.parameters_of(connection)
        self.purpose = _purpose(connection, shield, producer)
        self.publisher = Publisher(parameters, shield=shield, shield_producer=producer)
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()


def relay_for(connection: Any, shield: Shield, producer: str) -> Publisher:
    """Return the publisher that sends to this connection's broker with its parameters."""
    purpose = _purpose(connection, shield, producer)
    with _lock:
        for relay in _relays:
            if relay.purpose == purpose and not relay.publisher.closed:
                break
        else:
            relay = Relay(connection, shield, producer)
            _relays.append(relay)
        if connection not in relay.users:
            relay.users.add(connection)
            internals.on_close(connection, partial(_left, relay))
        return relay.publisher


def bring_back(connection: Any, shield: Shield, producer: str) -> None:
    """Open the relay where something is to come back, or be kept, through it, as with a client.

    That is the lifecycle of a `Publisher`, for programs that have channels alone.
    """
    if shield.engine.begins_with_a_client:
        relay_for(connection, shield, producer)


def _left(relay: Relay, connection: Any) -> None:
    """Close a relay whose last connection has closed."""
    with _lock:
        relay.users.discard(connection)
        if relay.users or relay not in _relays:
            return
        _relays.remove(relay)
    close = partial(relay.publisher.close, EXIT_WITHIN_S)
    threading.Thread(target=close, name="shield-rabbitmq-closing").start()


def _purpose(connection: Any, shield: Shield, producer: str) -> tuple[Any, ...]:
    """Return all by which two relays differ; pika's parameters compare host and port only."""
    parameters = internals.parameters_of(connection)
    return (
        shield,
        producer,
        parameters.host,
        parameters.port,
        parameters.virtual_host,
        parameters.credentials,
        parameters.ssl_options,
    )


def _forget() -> None:
    """In a forked child: the parent's relays write for the parent only."""
    global _lock
    _lock = threading.Lock()
    _relays.clear()


after_fork(_forget, ForkStage.RESOURCES)
