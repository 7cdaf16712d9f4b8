"""Runs the demo's producers, each on its own thread, and reports what Shield makes of them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress

from shield.cli.demo.gauge import Meter
from shield.cli.demo.observer import Observer
from shield.cli.demo.report import BLANK, Report, ReportLine
from shield.cli.demo.script import Part, script_for
from shield.demo import Demo, DemoProducer
from shield.errors import OverLimitError
from shield.shield import Shield

BODY = b'{"order": 42, "item": "a book", "amount": 1, "note": "published by shield demo"}'
STEP_S = 0.005


class DemoRun:
    """One run of the demo's producers through one Shield.

    Args:
        demo: the broker, entered.
        seconds: how long they send.
        messages: how many each sends at the most; None for as many as the time allows.
    """

    def __init__(self, demo: Demo[Shield], seconds: float, messages: int | None) -> None:
        self.demo, self.seconds, self.messages = demo, seconds, messages
        self.script = script_for(demo)
        self._observer = Observer(self._elapsed_s)
        self.shield = Shield(self.script.settings, plugins=[self._observer])
        parts = self.script.parts
        self._meters = {part.name: Meter(part.gauge) for part in parts}
        self._clients = [demo.producer(self.shield, part.name, part.destination) for part in parts]
        self._threads = ThreadPoolExecutor(len(parts))
        self._stop = threading.Event()
        self._playing: dict[str, Future[None]] = {}

    def start(self) -> None:
        """Let all producers begin."""
        self._began = time.monotonic()
        for part, client in zip(self.script.parts, self._clients, strict=True):
            self._playing[part.name] = self._threads.submit(self._play, part, client)

    def going(self, tick_s: float) -> bool:
        """Wait so long, for the producers' end at the most; tell whether any is still at work."""
        return bool(wait(self._playing.values(), tick_s).not_done)

    def stop_soon(self) -> None:
        """Let the producers send nothing more; for a signal handler."""
        self._stop.set()

    def stop(self) -> None:
        """Return when every producer has sent its last, and has its answer or has given up."""
        self._stop.set()
        self._threads.shutdown()

    def report(self) -> Report:
        """Read the broker back, then look at the ledger: while producers send, it is ahead."""
        counts = self.script.counts
        held = [self.demo.count(count.destination) for count in counts]
        elapsed_s, ledger = self._elapsed_s(), self.shield.ledger()
        offered = {name: ledger.producers.get(name, BLANK).offered for name in self._meters}
        return Report(
            elapsed_s,
            ledger,
            self._observer.waited.copy(),
            {name: meter.read(elapsed_s, offered[name]) for name, meter in self._meters.items()},
            self._observer.episodes,
            tuple(
                ReportLine(destination, end, getattr(ledger.rules.get(rule, BLANK), end), broker)
                for (destination, rule, end), broker in zip(counts, held, strict=True)
            ),
            tuple(self._errors()),
        )

    def _errors(self) -> list[str]:
        ended = {name: playing for name, playing in self._playing.items() if playing.done()}
        return [f"{name}: {error}" for name, p in ended.items() if (error := p.exception())]

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _play(self, part: Part, client: DemoProducer) -> None:
        sent = 0
        with closing(client):
            while not self._stop.is_set() and sent != self.messages:
                elapsed_s = self._elapsed_s()
                if elapsed_s >= self.seconds:
                    return
                if sent >= part.due(elapsed_s, sent, self._observer.delivered[part.name]):
                    self._stop.wait(STEP_S)
                    continue
                with suppress(OverLimitError):  # it is in the ledger, as raised
                    client.send(BODY)
                sent += 1
