"""`shield spool`: what is on disk, seen and handled from the command line."""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.metadata import EntryPoint

import pytest

from shield import Shield
from shield.config import registry
from shield.plugins.actions.spool.offline import OfflineSource
from shield.plugins.actions.spool.snapshot import entries_in
from shield.plugins.actions.spool.storage.store import Failure, Store
from shield.testing import FakeClient
from tests.memory import Broker, Memory
from tests.plugins.actions.spool.conftest import arrived

SHUT = {"match": "*", "name": "orders", "quota": {"rate": "1/d", "burst": 1}}


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client that has spooled three messages, and is open."""
    monkeypatch.setenv("SHIELD_SPOOL_DIR", str(tmp_path / "spools"))
    rule = {**SHUT, "over_limit": ["spool 8MiB"]}
    client = FakeClient(Shield({"shield": {"producer": "checkout"}, "rules": [rule]}))
    client.publish("orders", b"admitted")
    futures = [
        client.publish("orders", body, b"key", {"trace": "abc"})
        for body in (b"one", b"two", b"\xff\x00")
    ]
    for future in futures:
        future.result(60)
    yield client
    client.close(5)


def test_ls_shows_each_spool(run, client, tmp_path):
    """How many messages, whose, and who uses it; the same as JSON."""
    shown = run("spool", "ls")
    assert shown.exit_code == 0, shown.output
    assert "checkout+orders" in shown.stdout
    (found,) = json.loads(run("spool", "ls", "--json").stdout)
    assert (found["producer"], found["rule"], found["messages"]) == ("checkout", "orders", 3)
    assert found["used_by"] is not None
    assert found["parked"] == 0
    client.close(5)
    (found,) = json.loads(run("spool", "ls", "--json").stdout)
    assert (found["messages"], found["used_by"]) == (3, None)


def test_ls_says_where_it_looked_in_vain(run, tmp_path, monkeypatch):
    """So that a wrong folder is noticed."""
    monkeypatch.setenv("SHIELD_SPOOL_DIR", str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in run("spool", "ls").stdout.replace("\n", "")
    assert run("spool", "ls", "--json").stdout.strip() == "[]"


def test_ls_names_what_is_wrong_with_a_file(run, client, tmp_path):
    """And goes on with the others."""
    (tmp_path / "spools" / "bad+rule.spool").write_bytes(bytes(5000))
    found = {each["rule"]: each for each in json.loads(run("spool", "ls", "--json").stdout)}
    assert found["orders"]["problem"] is None
    assert "bad+rule.spool" in found["rule"]["problem"]


def test_show_lists_messages_and_tells_all_of_one(run, client):
    """By the spool's name or its rule's; a message by its number or its id."""
    listed = json.loads(run("spool", "show", "orders", "--json").stdout)
    assert [each["body"] for each in listed] == ["one", "two", {"base64": "/wA="}]
    one = json.loads(run("spool", "show", "checkout+orders", listed[1]["number"], "--json").stdout)
    assert one == listed[1]
    identity = dict(map(tuple, one["marks"]))["shield-message-id"]
    assert json.loads(run("spool", "show", "orders", identity, "--json").stdout) == one
    assert "trace" in run("spool", "show", "orders", identity).stdout
    assert len(json.loads(run("spool", "show", "orders", "--limit", "1", "--json").stdout)) == 1
    assert json.loads(run("spool", "show", "orders", "--parked", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["show", "nothing"], "allowed: checkout+orders"), (["show", "orders", "9.9"], "'9.9'")],
)
def test_what_is_not_there_is_an_error(run, client, arguments, said):
    """Exit status 2, and what there is."""
    shown = run("spool", *arguments)
    assert shown.exit_code == 2
    assert said in shown.stderr


def test_export_writes_json_lines_and_leaves_all_where_it_is(run, client, tmp_path):
    """To standard output, or to a file that is not there yet."""
    lines = run("spool", "export", "orders").stdout.splitlines()
    assert [json.loads(line)["body"] for line in lines] == ["one", "two", {"base64": "/wA="}]
    file = tmp_path / "out.jsonl"
    assert run("spool", "export", "orders", "--to", str(file)).exit_code == 0
    assert file.read_text().splitlines() == lines
    assert run("spool", "export", "orders", "--to", str(file)).exit_code == 2


def test_purge_refuses_a_file_in_use(run, client):
    """It names the process, and deletes nothing."""
    shown = run("spool", "purge", "orders", "--yes")
    assert shown.exit_code == 2
    assert "has it" in shown.stderr
    assert len(run("spool", "export", "orders").stdout.splitlines()) == 3


def test_purge_deletes_when_it_is_told_so(run, client):
    """It asks, unless --yes says so; then nothing is left."""
    client.close(5)
    assert run("spool", "purge", "orders").exit_code == 1  # nobody answers
    assert len(run("spool", "export", "orders").stdout.splitlines()) == 3
    assert json.loads(run("spool", "purge", "orders", "--parked", "--yes", "--json").stdout) == {
        "file": str(client.shield.settings.spool_dir / "checkout+orders.spool"),
        "purged": 0,
    }
    assert "3 messages deleted" in run("spool", "purge", "orders", "--yes").stdout
    (found,) = json.loads(run("spool", "ls", "--json").stdout)
    assert found["messages"] == 0


def test_a_file_can_be_read_back_and_what_is_forgotten_is_gone(client):
    """As `shield redrive` does, once no process uses it."""
    file = client.shield.settings.spool_dir / "checkout+orders.spool"
    client.close(5)
    source = OfflineSource(file)
    assert source.left() == 3
    first, second, third = source.take(10, 0.0)
    assert [taken.envelope.body for taken in (first, second, third)] == [
        b"one",
        b"two",
        b"\xff\x00",
    ]
    source.failed(second)
    assert source.take(10, 0.0) == [second]
    source.forget(first)
    source.forget(third)
    source.close()
    again = OfflineSource(file)
    assert [taken.envelope for taken in again.take(10, 0.0)] == [second.envelope]
    again.close()


@pytest.fixture
def parked(client, monkeypatch):
    """The spool of a process that is gone, whose first two messages were parked, and their ids."""
    client.close(5)
    file = client.shield.settings.spool_dir / "checkout+orders.spool"
    entries = list(entries_in(file))
    store = Store(file, 2**30, "os")
    failure = Failure(10, "BadMessageError('too bad')", parked=True)
    store.write(failures={entry.position: failure for entry in entries[:2]})
    store.close()
    return file, [entry.envelope.id for entry in entries]


def parked_in(run):
    return [
        each["body"]
        for each in json.loads(run("spool", "show", "orders", "--json").stdout)
        if each["parked"]
    ]


def test_retry_has_parked_messages_tried_again(run, parked):
    """One of them, or all; with as many attempts as at first."""
    _, (first, _, third) = parked
    assert parked_in(run) == ["one", "two"]
    assert json.loads(run("spool", "retry", "orders", first, "--json").stdout)["retried"] == 1
    assert parked_in(run) == ["two"]
    assert "1 messages are tried again" in run("spool", "retry", "orders").stdout
    assert parked_in(run) == []
    one = json.loads(run("spool", "show", "orders", first, "--json").stdout)
    assert (one["attempts"], one["error"]) == (0, "BadMessageError('too bad')")
    refused = run("spool", "retry", "orders", third)
    assert (refused.exit_code, refused.stderr) == (
        2,
        f"MESSAGE: found '{third}', which is not parked\n",
    )


def test_what_is_tried_again_goes_out_with_the_next_process(run, parked):
    """Before what is newer; the parked one that is left does not."""
    _, (_, second, _) = parked
    assert run("spool", "retry", "orders", second).exit_code == 0
    rule = {**SHUT, "quota": "100/s", "over_limit": ["spool 8MiB"]}
    after = FakeClient(Shield({"shield": {"producer": "checkout"}, "rules": [rule]}))
    assert arrived(after, 2) == [b"two", b"\xff\x00"]
    after.close(5)


def test_retry_refuses_a_file_in_use(run, client):
    """The process that has it would not hear of it."""
    shown = run("spool", "retry", "orders")
    assert shown.exit_code == 2
    assert "has it" in shown.stderr


def test_a_spool_with_parked_messages_is_redriven_to_its_end(run, parked, memory):
    """They stay."""
    file, _ = parked
    done = json.loads(run("redrive", str(file), "--to", "memory://b", "--json").stdout)
    assert (done["sent"], done["complete"]) == (1, True)
    assert parked_in(run) == ["one", "two"]


def test_what_is_exported_can_be_redriven(run, parked, memory, tmp_path):
    """The lines are those of `overflow file://`: each message comes back as it was, with its id."""
    spool, ids = parked
    file = tmp_path / "out.jsonl"
    assert run("spool", "export", "orders", "--to", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    spooled = {e.envelope.id: e.envelope for e in entries_in(spool)}
    options = ["--to", "memory://b", "--where", "rule==orders && producer==fake", "--json"]
    done = json.loads(run("redrive", f"file://{file}", *options).stdout)
    assert done["messages"] == [{"rule": "orders", "destination": "orders", "messages": 3}]
    back = memory["b"].places["orders"]
    assert [envelope.id for envelope in back] == ids
    for envelope in back:
        before = spooled[envelope.id]
        assert (envelope.body, envelope.key) == (before.body, before.key)
        assert (envelope.headers, envelope.producer) == (before.headers, before.producer)
        assert dict(envelope.marks) == dict(before.marks)
    assert not file.exists()


@pytest.fixture
def memory(monkeypatch):
    """Brokers in this process, for `memory://`."""
    fresh = defaultdict(Broker)
    monkeypatch.setattr(Memory, "brokers", fresh)
    points = (*registry._entry_points(), EntryPoint("memory", "tests.memory:PLUGIN", "shield"))
    monkeypatch.setattr(registry, "_entry_points", lambda: points)
    return fresh


def test_help_teaches(run):
    """Each subcommand has a line about it."""
    shown = run("spool", "--help").stdout
    assert all(name in shown for name in ("ls", "show", "export", "retry", "purge"))
    assert run("spool", "purge", "--help").exit_code == 0
