"""`redrive = "auto"`: one thread of a Shield brings overflowed messages back."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING

from shield.transport import Transport
from shield.way_back import WayBack

if TYPE_CHECKING:
    from shield.action import Action
    from shield.rule import Rule
    from shield.shield import Shield

LOOK_EVERY_S = 0.2
_inherited: list[AutoRedrive] = []
"""In a forked child: the parent's."""


class AutoRedrive:
    """The ways back of one Shield's rules, for as long as there are clients to send through.

    The thread begins with the first client of a Shield that has such a rule, and ends with the
    last. Where several rules overflow to one URL, all of them must be quiet.
    """

    def __init__(self, shield: Shield) -> None:
        self._shield = shield
        self._lock = threading.Lock()
        self._ways: dict[Hashable, WayBack] = {}
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()

    # --- clients come and go --------------------------------------------------------------------

    def opened(self, client: Transport) -> None:
        """Let what overflowed go back through this client, too."""
        for rule in self._shield.rules:
            if rule.redrive == "auto":
                for action in rule.chain:
                    if action.overrides("way_back"):
                        self._add(client, rule, action)

    def _add(self, client: Transport, rule: Rule, action: Action) -> None:
        key = action.place or (client.origin, action)
        with self._lock:
            way = self._ways.get(key)
            if way is None or way.ending:
                way = self._ways[key] = WayBack(self._shield, rule, action.way_back)
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
            ways = list(self._ways.values())
            for way in ways:
                way.clients.remove(client)
            ending = [way for way in ways if way.ending]
            alive = self._thread
        for way in ending:
            way.end_soon()
        self._woken.set()
        if alive is None or alive is threading.current_thread():
            return
        for way in ending:
            way.ended.wait(timeout_s)

    def leave_to_the_parent(self) -> None:
        """In a forked child: never touch, and never collect, what the parent reads through."""
        if self._ways:
            _inherited.append(self)

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while ways := self._living():
            alone = len(ways) == 1
            busy = [self._turn(way, alone) for way in ways]
            if not any(busy):
                self._shield.clock.wait(self._woken, LOOK_EVERY_S)
                self._woken.clear()

    def _turn(self, way: WayBack, alone: bool) -> bool:
        """Let one way back have its turn; whatever goes wrong in it, the others have theirs."""
        try:
            return way.turn(alone=alone)
        except BaseException as error:
            way.failed(error)
            return False

    def _living(self) -> list[WayBack]:
        """End those whose clients are gone; return the others, and where none is, be gone, too."""
        for way in list(self._ways.values()):
            if way.ending:
                way.close()
                way.ended.set()
        with self._lock:
            self._ways = {key: way for key, way in self._ways.items() if not way.ended.is_set()}
            if not self._ways:
                self._thread = None
            return list(self._ways.values())
