"""Files that are damaged, foreign or from the future; disks that are full or not to be written."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3

import pytest

import shield
from shield.plugins.actions.spool.storage.schema import VERSION
from tests.eventually import eventually
from tests.plugins.actions.spool.conftest import SHUT, WIDE, arrived, spool

A_CHUNK = 40
BODIES = [b"%d " % number + bytes(3000) for number in range(400)]


def left_by_a_process(spooling):
    """Leave many messages on disk; return their file."""
    client = spooling.client(SHUT)
    for start in range(0, len(BODIES), A_CHUNK):
        spool(client, *BODIES[start : start + A_CHUNK])
    client.close(5)
    return spooling.file


def set_aside(spooling):
    return [f for f in spooling.folder.iterdir() if ".damaged-" in f.name]


def test_a_file_of_zeros_is_left_alone(spooling, caplog):
    """Nothing says that it was ever Shield's."""
    spooling.folder.mkdir(mode=0o700)
    spooling.file.write_bytes(bytes(100_000))
    spooling.file.chmod(0o600)
    client = spooling.client(SHUT, "drop")
    assert shield.fate(client.publish("orders", b"1")) == "dropped"
    assert spooling.file.read_bytes() == bytes(100_000)
    assert "no spool of Shield" in caplog.text
    assert not set_aside(spooling)


@pytest.mark.parametrize("cut_at", [0.25, 0.5, 0.9])
def test_a_file_that_is_cut_off_gives_what_it_still_holds(spooling, caplog, cut_at):
    """The messages before the cut come back, each as it was; how many is in the log."""
    file = left_by_a_process(spooling)
    os.truncate(file, int(file.stat().st_size * cut_at))
    client = spooling.client(WIDE)
    left = client.shield.ledger().offered
    assert left >= len(BODIES) * cut_at - 2 * A_CHUNK
    assert f"{left} messages of it were recovered" in caplog.text
    bodies = arrived(client, left)
    assert set(bodies) <= set(BODIES)
    assert bodies == sorted(bodies, key=lambda body: int(body.split()[0]))
    assert len(set_aside(spooling)) == 1


def test_bytes_that_changed_in_the_middle_cost_no_more_than_their_chunk(spooling, caplog):
    """A checksum finds what SQLite does not."""
    file = left_by_a_process(spooling)
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"\xff" * 64)
    client = spooling.client(WIDE)
    left = client.shield.ledger().offered
    assert len(BODIES) - 2 * A_CHUNK <= left < len(BODIES)
    assert set(arrived(client, left)) < set(BODIES)
    assert "set aside" in caplog.text


def test_a_file_of_a_later_version_is_left_alone(spooling, caplog):
    """The action declines, and says so; the file does not change by a byte."""
    file = left_by_a_process(spooling)
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = file.read_bytes()
    client = spooling.client(SHUT, "drop")
    assert shield.fate(client.publish("orders", b"x")) == "dropped"
    assert "was written by a later version of Shield" in caplog.text
    assert file.read_bytes() == before
    assert not set_aside(spooling)


def test_another_programs_database_is_left_alone(spooling, caplog):
    """It may be dear to somebody."""
    spooling.folder.mkdir(mode=0o700)
    connection = sqlite3.connect(spooling.file)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    spooling.file.chmod(0o600)
    client = spooling.client(SHUT, "drop")
    assert shield.fate(client.publish("orders", b"x")) == "dropped"
    assert "another program's" in caplog.text
    assert not set_aside(spooling)


@pytest.fixture
def small_disk(spooling):
    """No file of this process may grow beyond 1 MiB: what a full disk answers."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield spooling
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full_declines_and_loses_nothing(small_disk, caplog):
    """What was accepted is there; what was not goes to the next action, and is counted."""
    client = small_disk.client(SHUT, "drop")
    futures = []
    for number in range(400):
        future = client.publish("orders", b"%d " % number + bytes(10_000))
        future.result(60)
        futures.append(future)
    fates = [shield.fate(future) for future in futures]
    ledger = client.shield.ledger()
    assert ledger.balanced
    assert 10 < fates.count("spooled") == ledger.spooled < 400
    assert fates.count("dropped") == ledger.dropped
    assert "messages go on to the next action" in caplog.text
    client.close(5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    after = small_disk.client(WIDE)
    came = arrived(after, ledger.spooled)
    assert len(came) == ledger.spooled


def test_a_disk_with_room_again_is_written_to_again(small_disk):
    """A second after it was full."""
    client = small_disk.client(SHUT, "drop")
    while shield.fate(client.publish("orders", bytes(10_000))) == "spooled":
        client.publish("orders", bytes(10_000)).result(60)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    eventually(lambda: shield.fate(client.publish("orders", b"x")) == "spooled")
