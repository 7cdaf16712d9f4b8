"""pika's own channels on a connection without a broker: a test answers by hand."""

from __future__ import annotations

from typing import Any

from pika import ConnectionParameters, frame, spec
from pika.callback import CallbackManager
from pika.channel import Channel


class Wire:
    """What a `Channel` needs of a connection; keeps the methods that were sent."""

    publisher_confirms = basic_nack = True
    _body_max_length = 1000

    def __init__(self) -> None:
        self.callbacks = CallbackManager()
        self.params = ConnectionParameters("localhost", 1)
        self.sent: list[Any] = []
        self.frames_sent = 0
        self.raises: BaseException | None = None

    def channel(self, kind: type[Channel] = Channel) -> Channel:
        """Return an open channel."""
        channel = kind(self, 1, lambda _channel: None)
        channel.open()
        self.answer(spec.Channel.OpenOk())
        self.sent.clear()
        return channel

    def answer(self, method: Any) -> None:
        """Let a method of the broker's come in."""
        self.callbacks.process(1, method, self, frame.Method(1, method))

    def published(self) -> list[str]:
        """The routing keys of what was published."""
        return [m.routing_key for m in self.sent if isinstance(m, spec.Basic.Publish)]

    def say(self, method: Any) -> None:
        """Let a method come in that is about the connection."""
        self.callbacks.process(0, method, self, self, frame.Method(0, method))

    def add_on_connection_blocked_callback(self, callback: Any) -> None:
        self.callbacks.add(0, spec.Connection.Blocked, callback, False)

    def add_on_connection_unblocked_callback(self, callback: Any) -> None:
        self.callbacks.add(0, spec.Connection.Unblocked, callback, False)

    def add_on_close_callback(self, callback: Any) -> None:
        self.callbacks.add(0, "closed", callback, False)

    def _send_method(self, number: int, method: Any, content: Any = None) -> None:
        if self.raises is not None:
            raise self.raises
        self.sent.append(method)

    def _send_message(self, number: int, method: Any, content: Any) -> None:
        self.sent.append(method)
