"""pika's connections as drop-in subclasses: the channels that they make are shielded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika

from shield import Shield
from shield_rabbitmq.channels.channel import state_of
from shield_rabbitmq.consuming.channel import opened
from shield_rabbitmq.publishing.pool import ShieldChoice, shield_for


class Shielding:
    """`channel()` of both connections."""

    shield: Shield | None = None
    """The Shield that decides; the one that this process shares where it is None."""
    shield_producer: str | None = None
    """Who publishes, to quotas and ledger; the settings' `producer` where it is None."""
    shield_consumer: str | None = None
    """Who receives; who publishes where it is None."""

    def channel(self, *args: Any, **kwargs: Any) -> Any:
        """Open a channel as pika does; what passes through it is within the rules."""
        chosen = shield_for(self.shield)
        channel = super().channel(*args, **kwargs)  # type: ignore[misc]
        state_of(channel).act(chosen, self.shield_producer, self.shield_consumer)
        opened(channel)
        return channel


class BlockingConnection(Shielding, pika.BlockingConnection):  # type: ignore[misc]
    """`pika.BlockingConnection` whose channels are shielded.

    Args:
        *args: as `pika.BlockingConnection` takes them.
        shield: a `shield.Shield`, the path of a settings file, a dict of settings, or None for
            the one that this process shares (`shield.default()`).
        shield_producer: who publishes, to quotas and ledger; the settings' `producer` if not given.
        shield_consumer: who receives; the same as who publishes if not given.
        **kwargs: as `pika.BlockingConnection` takes them.

    Raises:
        SettingsError: settings that cannot be used; no connection is made.
    """

    def __init__(
        self,
        *args: Any,
        shield: ShieldChoice = None,
        shield_producer: str | None = None,
        shield_consumer: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.shield = shield_for(shield)
        self.shield_producer, self.shield_consumer = shield_producer, shield_consumer
        super().__init__(*args, **kwargs)


class SelectConnection(Shielding, pika.SelectConnection):  # type: ignore[misc]
    """`pika.SelectConnection` whose channels are shielded.

    Args:
        *args: as `pika.SelectConnection` takes them.
        shield: a `shield.Shield`, the path of a settings file, a dict of settings, or None for
            the one that this process shares (`shield.default()`).
        shield_producer: who publishes, to quotas and ledger; the settings' `producer` if not given.
        shield_consumer: who receives; the same as who publishes if not given.
        **kwargs: as `pika.SelectConnection` takes them.

    Raises:
        SettingsError: settings that cannot be used; no connection is made.
    """

    def __init__(
        self,
        *args: Any,
        shield: ShieldChoice = None,
        shield_producer: str | None = None,
        shield_consumer: str | None = None,
        **kwargs: Any,
    ) -> None:
        if shield is not None or kwargs.get("internal_connection_workflow", True):
            self.shield = shield_for(shield)  # else `create_connection` knows it
        self.shield_producer, self.shield_consumer = shield_producer, shield_consumer
        super().__init__(*args, **kwargs)

    @classmethod
    def create_connection(
        cls,
        connection_configs: Any,
        on_done: Callable[[Any], None],
        *args: Any,
        shield: ShieldChoice = None,
        shield_producer: str | None = None,
        shield_consumer: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Connect as pika does; `on_done` gets the connection, with its Shield, or the error."""
        chosen = shield_for(shield)

        def done(result: Any) -> None:
            if isinstance(result, cls):
                result.shield = chosen
                result.shield_producer = shield_producer
                result.shield_consumer = shield_consumer
            on_done(result)

        return super().create_connection(connection_configs, done, *args, **kwargs)
