"""A power cut at any moment: what `file://` told as written is there, by what was synced alone."""

from __future__ import annotations

import random
from concurrent.futures import Future

import pytest

from shield import URL, Envelope
from shield.plugins.transports.file import FileTransport
from shield.plugins.transports.file.formats import FORMATS
from tests import power

CUTS = 150


@pytest.fixture(params=FORMATS)
def options(request):
    return f"format={request.param}&rotate=8KiB"


@pytest.fixture
def log(tmp_path, monkeypatch, options):
    """What two processes do: messages are written, some read back, and more written."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    url = URL.parse(f"file://{folder}/orders?{options}")
    with power.recorded(folder, monkeypatch) as log:
        _begin_carelessly(f"file://{folder}/orders?{options}&durability=os")
        _write(url, log, range(20))
        _read_back(url, log, 12)
        _write(url, log, range(20, 30))
        yield log


def _begin_carelessly(text):
    """Make the file as a process that leaves all to the system, or is killed, does."""
    transport = FileTransport.to(URL.parse(text))
    transport.send(Envelope("topic", b"unpromised", "kafka"), lambda error: None)
    transport.close(10)


def _write(url, log, numbers):
    """Write one after another, each by itself."""
    transport = FileTransport.to(url)
    for number in numbers:
        body = b"%d " % number + bytes(1 + number * 97 % 1500)
        written: Future[Exception | None] = Future()
        transport.send(Envelope("topic", body, "kafka"), written.set_result)
        assert written.result(10) is None
        log.told(("accepted", body))
    transport.close(10)


def _read_back(url, log, most):
    source = FileTransport.source(url)
    for taken in source.take(most, 0):
        log.told(("sent", taken.envelope.body))
        source.forget(taken)
    source.close()


def _left(files, folder, options):
    """Return what the next process reads, and whether it can write on."""
    power.restore(files, folder)
    url = URL.parse(f"file://{folder}/orders?{options}")
    ends = []
    transport = FileTransport.to(url)
    transport.send(Envelope("topic", b"later", "kafka"), ends.append)
    transport.close(10)
    assert ends == [None]
    source = FileTransport.source(url)
    found = {taken.envelope.body for taken in source.take(1000, 0)}
    source.close()
    return found


def test_what_was_written_is_there_after_a_power_cut(log, tmp_path, options):
    """Whatever is lost, torn or reordered of what was not synced; and it can be written on."""
    dice = random.Random(7)
    for number, at in enumerate(power.moments(log, CUTS, dice)):
        told = [step[1] for step in log.steps[:at] if step[0] == "told"]
        accepted = {body for what, body in told if what == "accepted"} | {b"later"}
        sent = {body for what, body in told if what == "sent"}
        found = _left(power.crash(log, at, dice), tmp_path / f"cut-{number}", options)
        assert accepted - sent <= found, f"cut before step {at} of {len(log.steps)}"
