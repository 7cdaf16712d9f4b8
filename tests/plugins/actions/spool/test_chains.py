"""Any chain with a real spool, whatever happens: each message has one end, or is in its file."""

from __future__ import annotations

import errno
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

import shield
from shield import Shield
from shield.plugins.actions.spool.snapshot import entries_in
from shield.plugins.actions.spool.storage.location import user_of
from shield.plugins.actions.spool.storage.store import Store
from shield.testing import FakeClient
from shield.testing.clock import HeldClock, ManualClock
from tests.chains import NOWHERE, Ways, chains, two_rules
from tests.eventually import eventually

SPOOL = {"spool": {"size": "1MiB", "durability": "os"}}
FILLING = 300_000
"""Bytes of which the spool holds three messages."""
PATIENCE_S = 0.02
"""How long the test waits for other threads where it cannot know that they have anything to do."""


def chains_with_a_spool() -> st.SearchStrategy[list[object]]:
    """Some that may decline, a spool, and any chain behind it."""
    before = st.lists(st.sampled_from(["wait 300ms", "retry 2", "buffer 3"]), max_size=1)
    return st.builds(lambda head, tail: [*head, SPOOL, *tail], before, chains())


class ClockOfTheTest(HeldClock):
    """The test's own waits move the time; all other threads wait until the test moves it."""

    def __init__(self) -> None:
        super().__init__()
        self._test = threading.current_thread()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        own = threading.current_thread() is self._test
        return (ManualClock if own else HeldClock).wait(self, event, timeout_s)


class Closable(FakeClient):
    """One that takes nothing more once it is closed, as real clients do."""

    closed = False

    def __init__(self, shield: Shield, producer: str) -> None:
        self._closing = threading.Lock()
        super().__init__(shield, producer)
        self.missing.add(NOWHERE)

    def begin(self, record, answered):
        with self._closing:
            if self.closed:
                raise ConnectionError("closed")
            super().begin(record, answered)

    def close(self, timeout_s: float | None = 0.0) -> None:
        super().close(timeout_s)
        with self._closing:
            self.closed = True
        self.fail(ConnectionError("closed"))


class SpoolChains(Ways):
    """Spools in a temporary folder, with their own threads; disks fill up, processes restart."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.disk_is_full = False
        look = Store._look_for_room

        def look_for_room(store: Store, size: int) -> None:
            if self.disk_is_full:
                raise OSError(errno.ENOSPC, "the disk is full")
            look(store, size)

        self.patch.setattr(Store, "_look_for_room", look_for_room)
        self.patch.setattr("shield.plugins.actions.spool.storage.writer.TRY_AGAIN_S", 0.005)
        self.patch.setattr("shield.plugins.actions.spool.storage.writer.RECORD_EVERY_S", 0.001)
        self.all_clients: list[Closable] = []

    @initialize(
        first=chains_with_a_spool(),
        second=chains_with_a_spool(),
        order=st.booleans(),
        seed=st.integers(0, 99),
    )
    def begin(self, first, second, order, seed):
        self.two_rules = two_rules(first, second, order, seed)
        self.two_rules[1]["in_flight"] = {"messages": 4}
        self.open_all()

    def open_all(self) -> None:
        """Be a new process, which finds what there is on disk."""
        own = {"spool_dir": self.folder.name, "producer": "process"}
        self.shield = Shield({"shield": own, "rules": self.two_rules}, clock=ClockOfTheTest())
        self.offered = sum(self.on_disk().values())
        self.clients = [self.client("p"), self.client("q")]

    def client(self, name: str) -> Closable:
        self.all_clients.append(Closable(self.shield, name))
        return self.all_clients[-1]

    def on_disk(self) -> Counter[bytes]:
        """Count bodies in files that nobody uses."""
        found: Counter[bytes] = Counter()
        for file in Path(self.folder.name).glob("*.spool"):
            eventually(lambda file=file: user_of(file) is None)
            found.update(entry.envelope.body for entry in entries_in(file))
        return found

    @rule(which=st.integers(0, 1), times=st.integers(1, 3))
    def publish_what_fills_the_spool(self, which, times):
        for _ in range(times):
            self.publish_one(which, "orders", FILLING, None)

    @rule()
    def the_disk_fills_up_and_is_freed(self):
        self.disk_is_full = not self.disk_is_full

    @rule()
    def what_is_accepted_is_on_disk(self):
        """Wait for the threads, so that what is done next meets messages in every state."""
        eventually(lambda: not any(map(_is_being_stored, self.futures.values())))

    @rule(times=st.integers(1, 8), sends=st.integers(0, 2))
    def what_is_on_disk_goes_out(self, times, sends):
        """Let seconds pass, in each of which the threads may send, and answer some of that."""
        for _ in range(times):
            before = self.shield.ledger().spooled
            self.shield.clock.advance(1.0)
            deadline = time.monotonic() + PATIENCE_S
            while self.shield.ledger().spooled == before and time.monotonic() < deadline:
                time.sleep(0.001)
            for client in self.clients:
                client.ack(sends)

    @rule()
    def the_process_restarts(self):
        self.end_of_the_process()
        self.disk_is_full = False
        self.open_all()

    def end_of_the_process(self) -> None:
        self.close_all()
        self.on_disk()
        ledger = self.shield.ledger()
        assert ledger.balanced
        assert ledger.in_flight == ledger.buffered == 0
        assert ledger.spooled == sum(self.on_disk().values())

    def teardown(self):
        try:
            super().teardown()
        finally:
            self.folder.cleanup()

    def come_to_the_end(self):
        self.end_of_the_process()
        super().come_to_the_end()
        self.each_message_has_one_end()

    def each_message_has_one_end(self) -> None:
        """A body is at the broker or on disk, once; or it is neither, and its caller knows."""
        there = self.on_disk()
        for client in self.all_clients:
            for records in client.arrived.values():
                there.update(record.body for record in records)
        expected = {
            body
            for body, future in self.futures.items()
            if shield.fate(future) in ("sent", "buffered", "overflowed", "spooled")
            and future.exception() is None
        }
        assert set(there) == expected
        assert set(there.values()) <= {1}
        known = self.raised | self.not_begun
        assert not known & set(there)
        assert len(self.futures) + len(known) == self.numbers


def _is_being_stored(future) -> bool:
    return shield.fate(future) == "spooled" and not future.done()


TestSpoolChains = SpoolChains.TestCase
TestSpoolChains.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
