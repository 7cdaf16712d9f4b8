"""The action `spool`: accepted once on disk, sent later, counted all the time."""

from __future__ import annotations

import logging
import os
import stat
import threading

import pytest

import shield
from shield import Kind, SettingsError, Shield, hookimpl
from shield.errors import OverLimitError
from shield.testing import ActionContract, FakeClient
from tests.eventually import eventually
from tests.making import counts
from tests.plugins.actions.spool.conftest import SHUT, WIDE, arrived, spool


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SHIELD_SPOOL_DIR", str(tmp_path / "default"))


class Fresh(ActionContract):
    """Each Shield has a folder of its own: what one leaves, the next would take up."""

    def make(self, *after):
        os.environ["SHIELD_SPOOL_DIR"] += "+"
        return super().make(*after)


class TestSpool(Fresh):
    link = "spool 16MiB"


class TestSpoolByTheSystem(Fresh):
    link = {"spool": {"size": "16MiB", "durability": "os", "max_attempts": 3}}


@pytest.fixture
def threads():
    """Return a look at the spool's threads of this test that do not end within a second."""
    before = set(threading.enumerate())

    def look():
        ours = [t for t in threading.enumerate() if t.name.startswith("shield-spool")]
        ours = [thread for thread in ours if thread not in before]
        for thread in ours:
            thread.join(1.0)
        return [thread for thread in ours if thread.is_alive()]

    return look


def test_a_message_is_accepted_once_it_is_on_disk(spooling):
    """Its future ends with None, its fate is spooled, and the ledger has it there."""
    client = spooling.client(SHUT)
    spool(client, b"1", b"2")
    assert counts(client.shield.ledger()) == {"offered": 3, "delivered": 1, "spooled": 2}
    assert stat.S_IMODE(spooling.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(spooling.folder.stat().st_mode) == 0o700


def test_what_is_spooled_goes_out_when_the_rules_admit_it(spooling):
    """In order, each once, with an id and its attempt; then the ledger has it as delivered."""
    client = spooling.client({"quota": {"rate": "5/s", "burst": 1}})
    bodies = [b"%d" % number for number in range(5)]
    for body in bodies:
        client.publish("orders", body)
    assert arrived(client, 5) == bodies
    assert counts(client.shield.ledger()) == {"offered": 5, "delivered": 5}
    headers = client.arrived["orders"][-1].headers
    assert headers["shield-attempt"] == "1"
    assert len(headers["shield-message-id"]) == 36


def test_what_is_left_goes_out_by_the_next_process(spooling):
    """It is counted as offered and spooled as soon as a client of its broker is open."""
    client = spooling.client(SHUT)
    spool(client, b"1", b"2", b"3")
    client.close(5)
    assert client.shield.ledger().spooled == 3
    after = spooling.client(WIDE)
    assert after.shield.ledger().offered == 3
    assert arrived(after, 3) == [b"1", b"2", b"3"]
    assert counts(after.shield.ledger()) == {"offered": 3, "delivered": 3}
    after.close(5)
    assert arrived(spooling.client(WIDE), 0) == []


def test_a_closed_client_sends_nothing_more(spooling, threads):
    """What is left stays, all threads end, and another process can have the file."""
    client = spooling.client({"in_flight": {"messages": 1}})
    client.publish("orders", b"unanswered")
    spool(client, b"1", b"2")
    client.close(5)
    assert counts(client.shield.ledger()) == {"offered": 3, "failed": 1, "spooled": 2}
    assert not threads()
    assert arrived(spooling.client(WIDE), 2) == [b"1", b"2"]


def test_one_writer_and_one_drain_serve_all_clients_of_a_broker(spooling, threads):
    """No thread for each producer; what the first one's leave goes through the second."""
    client = spooling.client({"quota": {"rate": "50/s", "burst": 1}})
    other = FakeClient(client.shield)
    assert len(threads()) == 2
    for number in range(10):
        client.publish("orders", b"%d" % number)
    client.close(0.5)
    assert len(threads()) == 2
    eventually(lambda: other.ack() or other.shield.ledger().spooled == 0)
    other.close(5)
    assert not threads()
    assert client.shield.ledger().balanced


def test_of_one_key_the_order_is_kept_whatever_fails(spooling):
    """A failed send comes again before all that came after it."""
    client = spooling.client(SHUT)
    spool(client, b"1", b"2", b"3", key=b"k")
    client.close(5)
    after = spooling.client(WIDE)
    eventually(lambda: after.unanswered)
    after.fail()
    assert arrived(after, 3) == [b"1", b"2", b"3"]


def test_two_processes_cannot_have_one_file(spooling, caplog):
    """The second one declines, and says who has it and what to do."""
    client = spooling.client(SHUT)
    with caplog.at_level(logging.ERROR, "shield.spool"):
        second = spooling.client(SHUT, "drop")
    assert shield.fate(second.publish("orders", b"x")) == "dropped"
    assert f"process {os.getpid()} has it" in caplog.text
    assert "SHIELD_PRODUCER" in caplog.text
    spool(client, b"undisturbed")


def test_a_full_spool_declines_and_takes_again_when_there_is_room(spooling):
    """It is bounded in bytes; the next action has the rest."""
    client = spooling.client({"in_flight": {"messages": 1}}, "drop", size="1MiB")
    client.publish("orders", b"unanswered")
    fates = [shield.fate(client.publish("orders", bytes(100_000))) for _ in range(20)]
    assert fates.count("spooled") in range(8, 11)
    assert fates[-1] == "dropped"
    arrived(client, 1 + fates.count("spooled"))
    client.publish("orders", b"unanswered")
    eventually(lambda: shield.fate(client.publish("orders", bytes(100_000))) == "spooled")
    assert spooling.file.stat().st_size <= 2**20


def test_a_folder_that_cannot_be_written_declines(spooling, caplog):
    """A clear line, once, and the chain goes on."""
    spooling.folder.write_text("in the way")
    client = spooling.client(SHUT, "raise")
    for _ in range(3):
        with pytest.raises(OverLimitError):
            client.publish("orders", b"x")
    assert caplog.text.count("spool_dir") == 2  # the folder, and what is allowed
    assert str(spooling.folder) in caplog.text


def test_the_file_is_opened_again_once_that_can_be(spooling):
    """A later message finds that the way is free, at the latest after five seconds."""
    spooling.folder.write_text("in the way")
    client = spooling.client(SHUT, "drop")
    spooling.folder.unlink()
    client.shield.rules[0].chain[0]._try_at_s = 0.0
    spool(client, b"1")


class Listening:
    def __init__(self):
        self.kinds = []

    @hookimpl
    def shield_on_event(self, event):
        self.kinds.append((event.kind, event.message and event.message.destination))


def test_observers_hear_of_what_is_spooled_and_what_came_back(spooling):
    """SPOOLED, and REDRIVEN when the broker has confirmed it."""
    listening = Listening()
    client = spooling.client({"quota": {"rate": "100/s", "burst": 1}}, plugins=[listening])
    client.publish("orders", b"1")
    client.publish("orders", b"2")
    arrived(client, 2)
    eventually(lambda: (Kind.REDRIVEN, "orders") in listening.kinds)
    kinds = [kind for kind, _ in listening.kinds]
    assert kinds.index(Kind.SPOOLED) < kinds.index(Kind.REDRIVEN)
    assert kinds.count(Kind.REDRIVEN) == 1


def test_a_callback_of_a_spooled_messages_future_may_publish(spooling):
    """The thread that writes never waits for itself, not even in a chain with `wait`."""
    client = spooling.client(SHUT, "wait 1h", "drop")
    again = []
    future = client.publish("orders", b"1")
    future.add_done_callback(lambda _: again.append(client.publish("orders", b"2")))
    future.result(60)
    eventually(lambda: again)
    assert again[0].result(60) is None
    assert counts(client.shield.ledger())["spooled"] == 2


def test_a_forked_child_declines_and_leaves_the_parent_alone(spooling):
    """The file is the parent's; the child says so, and the parent goes on."""
    client = spooling.client(SHUT, "drop")
    spool(client, b"1")
    child = os.fork()
    if child == 0:
        own = FakeClient(client.shield)
        own.publish("orders", b"x")
        fates = {shield.fate(own.publish("orders", b"x")) for _ in range(3)}
        os._exit(0 if fates == {"dropped"} else 1)
    assert os.waitpid(child, 0)[1] == 0
    spool(client, b"2")
    client.close(5)
    assert arrived(spooling.client(WIDE), 2) == [b"1", b"2"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": "1KiB"}, "size"),
        ({"size": "4MiB", "durability": "maybe"}, "durability"),
        ({"size": "4MiB", "max_attempts": 0}, "max_attempts"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    """With the key, and what is allowed."""
    with pytest.raises(SettingsError, match=said):
        Shield({"rules": [{"match": "*", "over_limit": [{"spool": settings}]}]})


def test_where_the_files_are_is_a_setting(monkeypatch, tmp_path):
    """SHIELD_SPOOL_DIR, spool_dir, else the user's state folder."""
    assert Shield().settings.spool_dir == tmp_path / "default"
    monkeypatch.delenv("SHIELD_SPOOL_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert str(Shield().settings.spool_dir) == "/state/shield/spool"
    assert str(Shield({"shield": {"spool_dir": "/here"}}).settings.spool_dir) == "/here"
