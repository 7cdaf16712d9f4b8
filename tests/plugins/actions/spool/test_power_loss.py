"""A power cut at any moment: what was told as accepted is there, by what was synced alone."""

from __future__ import annotations

import random
import threading

import pytest

from shield.plugins.actions.spool.storage.chunks import envelopes_in
from shield.plugins.actions.spool.storage.recovery import open_store
from shield.testing import FakeClient
from tests import power
from tests.plugins.actions.spool.conftest import SHUT, WIDE, Spooling, arrived

CUTS = 150
SIZES = (10, 700, 5000, 40_000)


@pytest.fixture
def log(tmp_path, monkeypatch):
    """What two processes do: messages are spooled by two threads, then some are delivered."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    with power.recorded(folder, monkeypatch) as log:
        spooling = Spooling(folder / "shield" / "spools")
        first = spooling.client(SHUT, size="2MiB")
        threads = [threading.Thread(target=_publish, args=(first, log, n)) for n in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first.close(10)
        _deliver(spooling, log, monkeypatch)
        yield log


def _publish(client, log, thread):
    for number in range(25):
        body = b"%d-%d " % (thread, number) + bytes(SIZES[number % len(SIZES)])
        future = client.publish("orders", body)
        future.result(10)
        log.told(("accepted", body))


def _deliver(spooling, log, monkeypatch):
    """Let the broker have twenty messages or more."""
    begin = FakeClient.begin

    def noted(client, record, answered):
        log.told(("sent", record.body))
        begin(client, record, answered)

    monkeypatch.setattr(FakeClient, "begin", noted)
    client = spooling.client(WIDE, size="2MiB")
    arrived(client, 20)
    client.close(10)


def _left(files, folder):
    """Return what the next process finds."""
    power.restore(files, folder)
    store = open_store(folder / "checkout+orders.spool", 2**24, "os")
    done = store.delivered()
    found = {
        envelope.body
        for stored in store.all()
        for place, envelope in enumerate(envelopes_in(stored.chunk))
        if place not in done.get(stored.id, ())
    }
    store.close()
    return found


def test_what_was_accepted_is_there_after_a_power_cut(log, tmp_path):
    """Whatever is lost, torn or reordered of what was not synced."""
    dice = random.Random(7)
    for number, at in enumerate(power.moments(log, CUTS, dice)):
        told = [step[1] for step in log.steps[:at] if step[0] == "told"]
        accepted = {body for what, body in told if what == "accepted"}
        sent = {body for what, body in told if what == "sent"}
        found = _left(power.crash(log, at, dice), tmp_path / f"cut-{number}")
        assert accepted - sent <= found, f"cut before step {at} of {len(log.steps)}"
