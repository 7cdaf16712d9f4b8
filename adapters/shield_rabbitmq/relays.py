"""The publishers that carry what leaves users' channels: one for each broker, Shield and name.

A relay is made when it is first needed, and let go of when the last connection that has used it
closes: its thread then ends by itself, with all confirmed.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from typing import Any

from shield import Shield
from shield_rabbitmq import internals
from shield_rabbitmq.client import Publisher

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
        _relays[:] = [relay for relay in _relays if relay.users]
        for relay in _relays:
            if relay.purpose == purpose and not relay.publisher.closed:
                break
        else:
            relay = Relay(connection, shield, producer)
            _relays.append(relay)
        if connection not in relay.users:
            relay.users.add(connection)
            internals.on_close(connection, partial(_left, weakref.ref(relay)))
        return relay.publisher


def _left(relay_of: weakref.ref[Relay], connection: Any) -> None:
    """Let a relay go whose last connection is closed."""
    relay = relay_of()
    with _lock:
        if relay is not None:
            relay.users.discard(connection)
            if not relay.users and relay in _relays:
                _relays.remove(relay)


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


os.register_at_fork(after_in_child=_forget)
