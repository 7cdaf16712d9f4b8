"""`redrive = "auto"`: one thread of a Shield brings overflowed messages back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING

from shield.redriving.auto_session import CLOSE_WITHIN_S, RedriveSession
from shield.transport import Transport

if TYPE_CHECKING:
    from shield.action import Action
    from shield.rule import Rule
    from shield.verdict import Engine

log = logging.getLogger("shield")
LOOK_EVERY_S = 0.2
END_WITHIN_S = CLOSE_WITHIN_S + 15.0
"""How long a session may take to end: for its answers, and for closing its source."""
_inherited: list[AutoRedrive] = []
"""In a forked child: the parent's."""


class AutoRedrive:
    """The ways back of one Shield's rules, for as long as there are clients to send through.

    The thread begins with the first client of a Shield that has such a rule, and ends with the
    last. Where several rules overflow to one URL, all of them must be quiet.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._ways: dict[Hashable, RedriveSession] = {}
        self._replaced: list[RedriveSession] = []
        """Those that end while others are in their place already."""
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()

    # --- clients come and go --------------------------------------------------------------------

    def opened(self, client: Transport) -> None:
        """Let what overflowed go back through this client, too."""
        for rule in self._engine.rules:
            if rule.redrive == "auto":
                for action in rule.chain:
                    if action.overrides("way_back"):
                        self._add(client, rule, action)

    def _add(self, client: Transport, rule: Rule, action: Action) -> None:
        key = action.place or (client.origin, action)
        with self._lock:
            way = self._ways.get(key)
            if way is None or way.ending:
                if way is not None:
                    self._replaced.append(way)
                way = self._ways[key] = RedriveSession(self._engine, rule, action.way_back)
            elif rule not in way.pressure.rules:
                way.pressure.rules.append(rule)
            way.clients.add(client)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="shield-redrive", daemon=True
                )
                self._thread.start()

    def closing(self, client: Transport, timeout_s: float | None) -> None:
        """Send nothing more through a client, and see that what is sent is answered for."""
        with self._lock:
            ways = [way for way in self._all() if way.clients.leaves(client)]
            ending = [way for way in ways if way.ending]
            alive = self._thread
        for way in ending:
            way.end_soon()
        self._woken.set()
        if alive is None or alive is threading.current_thread():
            return
        most_s = len(ending) * END_WITHIN_S
        deadline = time.monotonic() + (most_s if timeout_s is None else min(timeout_s, most_s))
        for way in ending:
            if not way.ended.wait(max(0.0, deadline - time.monotonic())):
                log.warning("what was brought back last is not answered for; it may come twice")

    def leave_to_the_parent(self) -> None:
        """In a forked child: never touch, and never collect, what the parent reads through."""
        if self._ways:
            _inherited.append(self)

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while self._ends_some():
            ways = list(self._ways.values())
            busy = [self._turn(way, len(ways) == 1) for way in ways]
            if not any(busy):
                self._engine.clock.wait(self._woken, LOOK_EVERY_S)
                self._woken.clear()

    def _turn(self, way: RedriveSession, alone: bool) -> bool:
        """Let one way back have its turn; whatever goes wrong in it, the others have theirs."""
        try:
            return way.turn(alone=alone)
        except BaseException as error:
            way.failed(error)
            return False

    def _ends_some(self) -> bool:
        """End those whose clients are gone; where none is left, say so and be gone, too."""
        with self._lock:
            ending = [way for way in self._all() if way.ending]
        for way in ending:
            _end(way)
        with self._lock:
            self._replaced = [way for way in self._replaced if not way.ended.is_set()]
            self._ways = {key: way for key, way in self._ways.items() if not way.ended.is_set()}
            if self._all():
                return True
            self._thread = None
            return False

    def _all(self) -> list[RedriveSession]:
        """Return those in their places, and before them those that make room. Under the lock."""
        return [*self._replaced, *self._ways.values()]


def _end(way: RedriveSession) -> None:
    """Close a way back; whatever that raises, who waits for its end hears of it."""
    try:
        way.close()
    except Exception:
        log.exception("a way back cannot be closed")
    finally:
        way.ended.set()
