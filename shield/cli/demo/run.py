"""Runs the demo's producers, each on its own thread, and looks at what Shield makes of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from shield.accounts import Ledger
from shield.cli.demo.meters import Reading
from shield.cli.demo.script import Part, script_for
from shield.cli.demo.shedding import Episode, Shedding
from shield.demo import Demo, DemoProducer
from shield.errors import OverLimitError
from shield.events import Event, Kind
from shield.hookspecs import hookimpl
from shield.shield import Shield
from shield.verdict import Outcome

BODY = b'{"order": 42, "item": "a book", "amount": 1, "note": "published by shield demo"}'
STEP_S = 0.005
BLANK = Ledger()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the screen shows, at one moment; the ledger's counts are of the same instant."""

    elapsed_s: float
    ledger: Ledger
    waited: Counter[str]
    readings: dict[str, Reading]
    shedding: tuple[Episode, ...] = ()

    def of(self, part: Part) -> Ledger:
        """Return one producer's part of the ledger."""
        return self.ledger.producers.get(part.name, BLANK)


class _Heard:
    """A plugin as anyone could write it: counts by producer what it hears of.

    Each counter of a producer is written by one thread: its own, or that of its client.
    """

    def __init__(self) -> None:
        self.waited: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()

    @hookimpl
    def shield_on_event(self, event: Event) -> None:
        """Hear of everything that happens, on whichever thread it does."""
        if event.message is None:
            return
        if event.kind is Kind.SETTLED and event.detail == Outcome.DELIVERED:
            self.delivered[event.message.producer] += 1
        elif event.kind is Kind.WAITED:
            self.waited[event.message.producer] += 1


class DemoRun:
    """One run of the demo's producers through one Shield.

    Args:
        demo: the broker, entered.
        seconds: how long they send.
        messages: how many each sends at the most; None for as many as the time allows.
    """

    def __init__(self, demo: Demo[Shield], seconds: float, messages: int | None) -> None:
        self.demo = demo
        self.seconds = seconds
        self.messages = messages
        self.errors: list[str] = []
        self.script = script_for(demo)
        parts = self.script.parts
        self._heard, self._shedding = _Heard(), Shedding(self._elapsed_s)
        self.shield = Shield(self.script.settings, plugins=[self._heard, self._shedding])
        self._meters = {part.name: part.gauge.meter() for part in parts}
        self._stop = threading.Event()
        clients = [demo.producer(self.shield, part.name, part.destination) for part in parts]
        self._threads = [
            threading.Thread(target=partial(self._play, part, client), name=part.name)
            for part, client in zip(parts, clients, strict=True)
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
        elapsed_s, ledger = self._elapsed_s(), self.shield.ledger()
        readings = {
            name: meter.read(elapsed_s, ledger.producers.get(name, BLANK))
            for name, meter in self._meters.items()
        }
        waited = self._heard.waited.copy()
        return Snapshot(elapsed_s, ledger, waited, readings, self._shedding.episodes)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _play(self, part: Part, client: DemoProducer) -> None:
        try:
            self._send(part, client)
        except Exception as error:  # shown at the end; the others go on
            self.errors.append(f"{part.name}: {error}")
        finally:
            client.close()

    def _send(self, part: Part, client: DemoProducer) -> None:
        sent = 0
        while not self._stop.is_set():
            elapsed_s = self._elapsed_s()
            if elapsed_s >= self.seconds or sent == self.messages:
                return
            if sent >= part.due(elapsed_s, sent, self._heard.delivered[part.name]):
                self._stop.wait(STEP_S)
                continue
            with suppress(OverLimitError):  # it is in the ledger, as raised
                client.send(BODY)
            sent += 1
