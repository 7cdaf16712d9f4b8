"""Which exchanges are there: asked for on a channel of its own, before anything is sent to them.

A publish to an exchange that is missing closes the channel it came through, and with it the
confirms of all that was published before. So the first message for an exchange waits until a
passive declare has found it; a missing one fails its own messages and no others. An overflow
exchange whose rule says `declare = true` is declared instead, with a queue that takes all of it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pika import SelectConnection
from pika.exceptions import ChannelClosedByBroker

from shield_rabbitmq.client.errors import ExchangeError
from shield_rabbitmq.client.frames import CHANNEL
from shield_rabbitmq.client.overflow_topology import EVERY_KEY, EXCHANGE_TYPE

log = logging.getLogger("shield.rabbitmq")
ASK_EVERY_S = 5.0
Answer = Callable[[str, ExchangeError | None], None]


class Exchanges:
    """What one connection knows of exchanges. On the write thread, but for `missing`.

    Args:
        answer: called with each exchange asked for, and with the error where it is missing.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.known: set[str] = set()
        """Those that take our messages."""
        self.found = {""}
        """Those, and such as are there, as the default exchange always is, and may refuse some."""
        self._missing: dict[str, tuple[float, ExchangeError]] = {}
        self._asked: deque[tuple[str, bool]] = deque()
        self._asking = False
        self._channel: Any = None

    def missing(self, exchange: str) -> ExchangeError | None:
        """Return why it cannot be sent to, if it was asked for within the last five seconds."""
        until, error = self._missing.get(exchange, (0.0, None))
        return error if time.monotonic() < until else None

    def ask(self, connection: SelectConnection, exchange: str, declare: bool) -> None:
        """Find out about one, or make it; the answer comes by callback, unless the link is lost."""
        self._asked.append((exchange, declare))
        self._go_on(connection)

    def lose(self, exchange: str, error: ExchangeError) -> None:
        """Note that it is not there, or closed to us."""
        self.known.discard(exchange)
        self.found.discard(exchange)
        self._missing[exchange] = time.monotonic() + ASK_EVERY_S, error

    def forget(self) -> None:
        """Begin anew with a new connection; what was asked has no answer."""
        self.known, self.found = set(), {""}
        self._asked.clear()
        self._asking = False
        self._channel = None

    def _go_on(self, connection: SelectConnection) -> None:
        """Ask the next one soon: pika frees a channel's number only after its callbacks."""
        if self._asked and not self._asking:
            self._asking = True
            connection.ioloop.call_later(0, lambda: self._ask_first(connection))

    def _ask_first(self, connection: SelectConnection) -> None:
        if not connection.is_open:
            return
        if self._channel is None:
            connection.channel(channel_number=CHANNEL + 1, on_open_callback=self._opened)
        else:
            self._put_first()

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._closed)
        self._put_first()

    def _put_first(self) -> None:
        """Put the first question; the broker closes the channel where the answer is no."""
        exchange, declare = self._asked[0]
        if not exchange:  # it is there, and may not be declared
            self._found(None)
        elif declare:
            self._declare(exchange)
        else:
            self._channel.exchange_declare(exchange, passive=True, callback=self._found)

    def _declare(self, exchange: str) -> None:
        """Make it with its queue, step by step; what is there already and equal is no error."""
        channel = self._channel

        def declare_queue(_frame: object) -> None:
            channel.queue_declare(exchange, durable=True, callback=bind)

        def bind(_frame: object) -> None:
            channel.queue_bind(exchange, exchange, EVERY_KEY, callback=self._found)

        channel.exchange_declare(exchange, EXCHANGE_TYPE, durable=True, callback=declare_queue)

    def _found(self, _frame: object) -> None:
        connection = self._channel.connection
        exchange, _declared = self._asked.popleft()
        self._asking = False
        self.found.add(exchange)
        self._missing.pop(exchange, None)
        self._answer(exchange, None)
        self._go_on(connection)

    def _closed(self, channel: Any, reason: Exception) -> None:
        if channel is not self._channel or not isinstance(reason, ChannelClosedByBroker):
            return  # the connection is lost, and with it the question
        self._channel = None
        exchange, declare = self._asked.popleft()
        self._asking = False
        if declare:
            log.warning("overflow exchange %r cannot be declared: %s", exchange, reason)
        error = ExchangeError(exchange, reason.reply_code, reason.reply_text)
        self.lose(exchange, error)
        self._answer(exchange, error)
        self._go_on(channel.connection)
