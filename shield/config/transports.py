"""The transports of one Shield: made once for each URL, closed when it goes or the process ends."""

from __future__ import annotations

import logging
import threading
import time
import weakref

from shield.config.credentials import Credentials, with_credentials
from shield.config.registry import Registry
from shield.process_hooks import ForkStage, after_fork, at_exit
from shield.transport import Source, Transport
from shield.url import URL

log = logging.getLogger("shield")
CLOSE_WITHIN_S = 10.0
"""How long a process that ends waits for what its transports have not sent yet."""


class Transports:
    """Finds what sends to a URL; all rules of a Shield share what sends to the same one."""

    def __init__(self, registry: Registry, credentials: Credentials) -> None:
        self._registry = registry
        self._credentials = credentials
        self._made: dict[URL, Transport] = {}
        _alive.add(self)
        at_exit(_close_all)
        weakref.finalize(self, _close_behind, self._made).atexit = False

    def to(self, url: URL) -> Transport:
        """Return what sends to that URL; it connects with its first message.

        Raises:
            ValueError: nothing sends there; the text says what is allowed, and no secrets.
        """
        url = with_credentials(url, self._credentials)
        if url not in self._made:
            self._made[url] = self._registry.transport(url.scheme).to(url)
        return self._made[url]

    def source(self, url: URL) -> Source:
        """Return what reads back what was sent to that URL.

        Raises:
            ValueError: nothing reads there; the text says what is allowed, and no secrets.
            ShieldError: it cannot be read.
        """
        return self._registry.transport(url.scheme).source(with_credentials(url, self._credentials))

    def close(self, timeout_s: float) -> None:
        """Close all, within one limit of time: what is not sent by then fails, and is counted."""
        _close(self._made, timeout_s)


def _close(made: dict[URL, Transport], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while made:
        url, transport = made.popitem()
        try:
            transport.close(max(0.0, deadline - time.monotonic()))
        except Exception:
            log.exception("what sends to %s cannot be closed", url)


def _close_behind(made: dict[URL, Transport]) -> None:
    """Close what a Shield that is gone has left: nothing is under way in it.

    On a thread of its own, because the last to refer to a Shield may be a transport's thread.
    """
    if made:
        threading.Thread(target=_close, args=(made, CLOSE_WITHIN_S), daemon=True).start()


_alive: weakref.WeakSet[Transports] = weakref.WeakSet()
_inherited: list[dict[URL, Transport]] = []
"""In a forked child: what is the parent's. It is never touched, and never collected."""


def _close_all(within_s: float) -> None:
    until_s = time.monotonic() + within_s
    for transports in list(_alive):
        transports.close(max(0.0, until_s - time.monotonic()))


def _leave_to_the_parent() -> None:
    for transports in list(_alive):
        _inherited.append(dict(transports._made))
        transports._made.clear()
    _alive.clear()


at_exit(_close_all)
after_fork(_leave_to_the_parent, ForkStage.RESOURCES)
