"""Messages that a transport or an action may never answer for: each has a limit of time.

A transport promises to call `done` once, and a keeper to end what it keeps. One that does neither
must not leave a message in flight for ever, nor its caller with a future that nobody completes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from itertools import count

from shield.errors import DeliveryUnknownError
from shield.transport import Transport

log = logging.getLogger("shield")
LINGER_S = 1.0
"""How long the thread stays when nothing is unanswered any more."""

GiveUp = Callable[[Exception], None]
"""Ends a message as one whose fate is unknown; nothing where it was answered meanwhile."""


class AnswerTimeouts:
    """What one Shield has handed on and not heard of again.

    By the system's clock, whatever the Shield's: this is a limit on other people's code. One thread
    looks, while there is anything to look for.

    Args:
        limit_s: after how many seconds a message is given up.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._numbers = count()
        self._open: dict[int, tuple[float, Transport, GiveUp]] = {}
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()

    def expect(self, client: Transport, give_up: GiveUp, limit_s: float | None = None) -> int:
        """Note a message that came through a client; return its number, for `answered`."""
        limit_s = self._limit_s if limit_s is None else limit_s
        with self._lock:
            number = next(self._numbers)
            self._open[number] = time.monotonic() + limit_s, client, give_up
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="shield-unanswered", daemon=True
                )
                self._thread.start()
        return number

    def answered(self, number: int) -> None:
        """Note that it has its answer."""
        with self._lock:
            self._open.pop(number, None)

    def close(self, client: Transport) -> None:
        """Give up all that came through a client that closes, and had its time to be answered."""
        with self._lock:
            own = [n for n, (_, owner, _) in self._open.items() if owner is client]
            left = [self._open.pop(number)[2] for number in own]
        self._give_up(left, "its client closes, and nothing has answered for it")

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._open:
                    self._thread = None
                    return
                now = time.monotonic()
                due = [n for n, (until, _, _) in self._open.items() if until <= now]
                late = [self._open.pop(number)[2] for number in due]
                next_s = min((until for until, _, _ in self._open.values()), default=now) - now
            self._give_up(late, f"nothing has answered for it in {self._limit_s:g} s")
            self._changed.wait(min(max(next_s, 0.01), LINGER_S))

    def _give_up(self, messages: list[GiveUp], why: str) -> None:
        if messages:
            log.error("%d messages are given up: %s", len(messages), why)
        for give_up in messages:
            try:
                give_up(DeliveryUnknownError(why))
            except BaseException:
                log.exception("a message that was given up cannot be ended")
