"""A SelectConnection whose loop runs on a thread, for tests that want to call into it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pika

WITHIN_S = 60.0


class EventLoop:
    """Connects, and opens one channel; everything is done on the loop's thread, by `call`.

    Args:
        connect: makes the connection, as pika's class does; takes parameters and callbacks.
        url: where the broker is.
        confirms: whether confirms are turned on, before anything is published.
    """

    def __init__(self, connect: Callable[..., Any], url: str, confirms: bool = False) -> None:
        self._open: Future[Any] = Future()
        self._closed: Future[Any] = Future()
        self.confirms: list[Any] = []
        """What the broker has said of delivery tags."""
        self._confirms = confirms
        self.connection = connect(
            pika.URLParameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=lambda _, error: self._open.set_exception(error),
            on_close_callback=self._ended,
        )
        self._thread = threading.Thread(target=self.connection.ioloop.start)
        self._thread.start()
        self.channel = self._open.result(WITHIN_S)

    def _opened(self, channel: Any) -> None:
        if self._confirms:
            channel.confirm_delivery(
                lambda frame: self.confirms.append(frame.method),
                callback=lambda _frame: self._open.set_result(channel),
            )
        else:
            self._open.set_result(channel)

    def _ended(self, connection: Any, error: Exception) -> None:
        connection.ioloop.stop()
        self._closed.set_result(error)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call on the loop's thread; return or raise what that does."""
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(function(*args))
            except BaseException as error:
                done.set_exception(error)

        self.connection.ioloop.add_callback_threadsafe(run)
        return done.result(WITHIN_S)

    def ended(self) -> Exception:
        """Wait until the connection has closed; return why."""
        error = self._closed.result(WITHIN_S)
        self._thread.join(WITHIN_S)
        assert isinstance(error, Exception)
        return error

    def close(self) -> None:
        """Close the connection, if it is not closed, and end the thread."""
        if not self._closed.done():
            self.connection.ioloop.add_callback_threadsafe(self._close)
        self.ended()

    def _close(self) -> None:
        if self.connection.is_open:
            self.connection.close()
