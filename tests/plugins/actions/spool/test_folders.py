"""A spool's folder, and what lies in it: used only where it is Shield's and this user's alone."""

from __future__ import annotations

import os
import pwd

import pytest

import shield
from shield import Shield
from shield.testing import FakeClient
from tests import foreign
from tests.making import counts
from tests.plugins.actions.spool.conftest import SHUT, spool

RULE = {"name": "orders", "match": "*", **SHUT, "over_limit": ["spool 8MiB", "drop"]}


@pytest.fixture
def left(spooling):
    """The file of a process that has ended."""
    client = spooling.client(SHUT)
    spool(client, b"1", b"2")
    client.close(5)
    return spooling.file


def declines(spooling, caplog, *said):
    """Publish a message: it goes on in its chain, nothing in the folder has changed."""
    before = foreign.look(spooling.folder.parent)
    client = spooling.client(SHUT, "drop")
    assert shield.fate(client.publish("orders", b"secret")) == "dropped"
    assert counts(client.shield.ledger())["dropped"] == 1
    assert client.shield.ledger().balanced
    assert foreign.look(spooling.folder.parent) == before
    for text in said:
        assert text in caplog.text


@pytest.mark.parametrize("what", foreign.FOREIGN)
def test_what_is_no_spool_is_not_written_to(spooling, caplog, what):
    """The action declines, and names it."""
    spooling.folder.mkdir(mode=0o700)
    foreign.make(what, spooling.file)
    declines(spooling, caplog, spooling.file.name)


def test_an_empty_file_is_not_written_to(spooling, caplog):
    """Shield's own has its header from the beginning: it gets its name when it is whole."""
    spooling.folder.mkdir(mode=0o700)
    spooling.file.touch(mode=0o600)
    declines(spooling, caplog, "no spool of Shield")


@pytest.mark.parametrize("what", ["text", "symlink", "hard link", "FIFO", "dangling symlink"])
def test_a_lock_that_is_none_is_not_truncated(spooling, caplog, what):
    """Nor what it points to."""
    spooling.folder.mkdir(mode=0o700)
    foreign.make(what, spooling.folder / f"{spooling.file.name}.lock")
    declines(spooling, caplog, ".lock")


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o620])
def test_a_file_that_others_may_use_gets_no_messages(spooling, left, caplog, mode):
    """Also where it is a spool of this user's."""
    left.chmod(mode)
    declines(spooling, caplog, f"mode is {mode:04o}", "allowed is 0600")


def test_a_file_of_another_user_gets_no_messages(spooling, left, caplog, stranger):
    """A whole spool of Shield's with mode 0600, prepared for whoever comes."""
    stranger(left)
    declines(spooling, caplog, "belongs to user")


@pytest.mark.parametrize("end", [".lock", "-wal", "-shm"])
def test_what_another_user_has_put_beside_it_is_refused(spooling, left, caplog, end, stranger):
    """A journal is played back into the file; a lock says whose it is."""
    path = left.with_name(left.name + end)
    path.touch(mode=0o600)
    stranger(path)
    declines(spooling, caplog, "belongs to user")


def test_a_folder_of_another_user_is_not_used(spooling, left, caplog, stranger):
    """Whatever is in it."""
    stranger(spooling.folder)
    declines(spooling, caplog, "belongs to user", "SHIELD_SPOOL_DIR")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_that_others_may_write_is_not_used(spooling, left, caplog, mode):
    """Sticky or not."""
    spooling.folder.chmod(mode)
    declines(spooling, caplog, f"mode is {mode:04o}")


def test_a_journal_without_its_file_is_not_taken_for_one(spooling, left, caplog):
    """It may be another's; and a new file would have it played back."""
    left.with_name(f"{left.name}-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(28))
    left.unlink()
    declines(spooling, caplog, "-wal is left of one")


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home folder, and no folder is named."""

    def nobody(*_):
        raise KeyError("no such user")

    for name in ("HOME", "XDG_STATE_HOME", "SHIELD_SPOOL_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_without_a_home_no_folder_is_guessed(homeless, caplog, tmp_path, monkeypatch):
    """Rules without a spool work; a spool declines, and says what to set."""
    monkeypatch.chdir(tmp_path)
    client = FakeClient(Shield({"rules": [RULE]}))
    client.publish("orders", b"admitted")
    assert shield.fate(client.publish("orders", b"x")) == "dropped"
    assert "has no home folder" in caplog.text
    assert "SHIELD_SPOOL_DIR" in caplog.text
    assert os.listdir(tmp_path) == []
    client.close(5)


def test_a_relative_state_folder_is_ignored(monkeypatch):
    """As the standard says that names it: it would be another one in each folder."""
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("SHIELD_SPOOL_DIR", raising=False)
    assert str(Shield().settings.spool_dir) == "/home/somebody/.local/state/shield/spool"


def test_a_home_is_filled_in(monkeypatch):
    """`~` is what people write."""
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = Shield({"shield": {"spool_dir": "~/spool"}}).settings
    assert str(settings.spool_dir) == "/home/somebody/spool"
