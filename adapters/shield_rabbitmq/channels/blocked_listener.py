"""What the broker tells a connection of its user's: whether it takes messages for now."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from shield import Signals
from shield_rabbitmq.client import internals


class BlockedListener:
    """Hears `connection.blocked` and `unblocked`, and notes it in the signals of each channel.

    At once, also where a blocking connection keeps it back from its user's callbacks until those
    are called. The user's own callbacks for it stay as they are.
    """

    def __init__(self, connection: Any) -> None:
        self._blocked = False
        self._all: WeakSet[Signals] = WeakSet()
        internals.on_blocked(connection, lambda: self._note(True), lambda: self._note(False))

    def tell(self, signals: Signals) -> None:
        """Note it there from now on."""
        signals.blocked = self._blocked
        self._all.add(signals)

    def _note(self, blocked: bool) -> None:
        self._blocked = blocked
        for signals in list(self._all):
            signals.blocked = blocked
            signals.changed()


_listeners: WeakKeyDictionary[Any, BlockedListener] = WeakKeyDictionary()


def listener_of(connection: Any) -> BlockedListener:
    """Return what hears for a connection; all of its channels share it."""
    if connection not in _listeners:
        _listeners[connection] = BlockedListener(connection)
    return _listeners[connection]
