"""Runs the demo's producers, each on its own thread, and looks at what Shield makes of them."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from shield.cli.demo_script import PARTS, Part, settings
from shield.demo import Demo, DemoProducer
from shield.errors import OverLimitError
from shield.events import Event, Kind
from shield.hookspecs import hookimpl
from shield.ledger import Ledger
from shield.shield import Shield

BODY = b'{"order": 42, "item": "a book", "amount": 1, "note": "published by shield demo"}'
STEP_S = 0.005
WINDOW_S = 1.0
BLANK = Ledger()


@dataclass(frozen=True, slots=True)
class Pace:
    """Messages a second: over the last second, and over the second that had most."""

    now: int = 0
    peak: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the screen shows, at one moment; the ledger's counts are of the same instant."""

    elapsed_s: float
    ledger: Ledger
    waited: Counter[str]
    paces: dict[str, Pace]

    def of(self, part: Part) -> Ledger:
        """Return one producer's part of the ledger."""
        return self.ledger.producers.get(part.name, BLANK)


class _Waits:
    """A plugin as anyone could write it: counts the messages that waited and were then sent."""

    def __init__(self) -> None:
        self.by_producer: Counter[str] = Counter()

    @hookimpl
    def shield_on_event(self, event: Event) -> None:
        """Hear of everything that happens; called on the producers' own threads."""
        if event.kind is Kind.WAITED and event.message is not None:
            self.by_producer[event.message.producer] += 1


class _Meter:
    """Keeps one producer's count over the last second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(-WINDOW_S, 0)])
        self._peak = 0

    def read(self, elapsed_s: float, offered: int) -> Pace:
        """Take note of a count and return the pace."""
        self._seen.append((elapsed_s, offered))
        while len(self._seen) > 2 and self._seen[1][0] <= elapsed_s - WINDOW_S:
            self._seen.popleft()
        then_s, before = self._seen[0]
        now = round((offered - before) / max(elapsed_s - then_s, WINDOW_S))
        self._peak = max(self._peak, now)
        return Pace(now, self._peak)


class Run:
    """One run of the demo's producers through one Shield.

    Args:
        demo: the broker, entered.
        seconds: how long they send.
        messages: how many each sends at the most; None for as many as the time allows.
    """

    def __init__(self, demo: Demo, seconds: float, messages: int | None) -> None:
        self.demo = demo
        self.seconds = seconds
        self.messages = messages
        self.errors: list[str] = []
        self._waits = _Waits()
        self.shield = Shield(settings(demo), plugins=[self._waits])
        self._meters = {part.name: _Meter() for part in PARTS}
        self._stop = threading.Event()
        clients = [demo.producer(self.shield, part.name) for part in PARTS]
        self._threads = [
            threading.Thread(target=partial(self._play, part, client), name=part.name)
            for part, client in zip(PARTS, clients, strict=True)
        ]

    def start(self) -> None:
        """Let all producers begin."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def going(self, tick_s: float) -> bool:
        """Wait a moment, for the producers' end at the most; tell whether any is still at work."""
        at_work = next((thread for thread in self._threads if thread.is_alive()), None)
        if at_work is not None:
            at_work.join(tick_s)
        return at_work is not None

    def stop_soon(self) -> None:
        """Let the producers send nothing more; for a signal handler."""
        self._stop.set()

    def stop(self) -> None:
        """Return when every producer has sent its last, and has its answer or has given up."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def snapshot(self) -> Snapshot:
        """Look at the ledger now."""
        elapsed_s, ledger = time.monotonic() - self._began, self.shield.ledger()
        paces = {
            name: meter.read(elapsed_s, ledger.producers.get(name, BLANK).offered)
            for name, meter in self._meters.items()
        }
        return Snapshot(elapsed_s, ledger, self._waits.by_producer.copy(), paces)

    def _play(self, part: Part, client: DemoProducer) -> None:
        try:
            self._send(part, client)
        except Exception as error:  # shown at the end; the others go on
            self.errors.append(f"{part.name}: {error}")
        finally:
            client.close()

    def _send(self, part: Part, client: DemoProducer) -> None:
        destination = getattr(self.demo, part.rule)
        sent = 0
        while not self._stop.is_set():
            elapsed_s = time.monotonic() - self._began
            if elapsed_s >= self.seconds or sent == self.messages:
                return
            if sent >= part.due(elapsed_s):
                self._stop.wait(STEP_S)
                continue
            with suppress(OverLimitError):  # it is in the ledger, as raised
                client.send(destination, BODY)
            sent += 1
