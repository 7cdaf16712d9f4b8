"""Commands that are pointed at a file which is not Shield's: refused, and nothing is touched."""

from __future__ import annotations

import json
import os

import pytest

from shield import Shield
from shield.testing import FakeClient
from tests import foreign

COMMANDS = {
    "redrive": ["redrive", "{}"],
    "redrive --dry-run": ["redrive", "{}", "--dry-run"],
    "redrive a URL": ["redrive", "file://{}", "--to", "file:///nowhere/at/all"],
    "redrive a URL --dry-run": ["redrive", "file://{}", "--dry-run"],
    "redrive spool": ["redrive", "spool://{}"],
    "redrive spool --dry-run": ["redrive", "spool://{}", "--dry-run"],
    "show": ["spool", "show", "{}"],
    "export": ["spool", "export", "{}"],
    "retry": ["spool", "retry", "{}"],
    "purge": ["spool", "purge", "{}", "--yes"],
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "lies"
    made.mkdir(mode=0o700)
    return made


@pytest.mark.parametrize("what", foreign.FOREIGN)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_shields_is_refused_untouched(run, folder, command, what):
    """One line that names it, exit status 2, and the folder is as before."""
    path = folder / "checkout+orders.spool"
    foreign.make(what, path)
    before = foreign.look(folder)
    done = run(*(part.format(path) for part in COMMANDS[command]))
    assert done.exit_code == 2, (done.output, done.exception)
    assert len(done.stderr.splitlines()) == 1
    assert str(path) in done.stderr
    assert foreign.look(folder) == before


@pytest.mark.parametrize("name", ["checkout+orders.spool", "orders.jsonl"])
@pytest.mark.parametrize("command", [*COMMANDS, "ls"])
def test_an_empty_file_stays_empty(run, folder, monkeypatch, name, command):
    """Whatever a command says of it, it makes no spool of it and nothing of it is renamed."""
    monkeypatch.setenv("SHIELD_SPOOL_DIR", str(folder))
    path = folder / name
    path.touch(mode=0o600)
    before = foreign.look(folder)
    run(*(part.format(path) for part in COMMANDS.get(command, ["spool", "ls"])))
    after = foreign.look(folder)
    after.pop(f"{name}.lock", None)
    assert after == before


@pytest.mark.parametrize("what", foreign.FOREIGN)
def test_ls_names_what_is_no_spool(run, folder, monkeypatch, what):
    """With its problem, and leaves it as it is."""
    monkeypatch.setenv("SHIELD_SPOOL_DIR", str(folder))
    foreign.make(what, folder / "checkout+orders.spool")
    before = foreign.look(folder)
    done = run("spool", "ls", "--json")
    assert done.exit_code == 0
    assert what == "folder" or all(found["problem"] for found in json.loads(done.stdout))
    assert foreign.look(folder) == before


@pytest.fixture
def spool(folder):
    """A spool with three messages, whose process has ended."""
    rule = {"match": "*", "name": "orders", "quota": {"rate": "1/d", "burst": 1}}
    own = {"producer": "checkout", "spool_dir": str(folder)}
    client = FakeClient(Shield({"shield": own, "rules": [{**rule, "over_limit": "spool 8MiB"}]}))
    client.publish("orders", b"admitted")
    for body in (b"1", b"2", b"3"):
        client.publish("orders", body).result(10)
    client.close(5)
    return folder / "checkout+orders.spool"


LOOKS = [
    ["redrive", "{}", "--dry-run", "--to", "file:///nowhere"],
    ["spool", "show", "{}"],
    ["spool", "export", "{}"],
]


@pytest.mark.parametrize("arguments", LOOKS, ids=" ".join)
def test_looking_at_a_spool_changes_nothing(run, folder, spool, arguments):
    """No journal, no lock, no renaming."""
    os.unlink(folder / "checkout+orders.spool.lock")
    before = foreign.look(folder)
    done = run(*(part.format(spool) for part in arguments))
    assert done.exit_code == 0, done.output
    assert foreign.look(folder) == before


def test_a_dry_run_of_a_spool_counts_what_is_there(run, spool):
    """All of it, each time."""
    for _ in range(2):
        done = run("redrive", str(spool), "--dry-run", "--to", "file:///nowhere", "--json")
        assert sum(each["messages"] for each in json.loads(done.stdout)["messages"]) == 3


def test_a_dry_run_of_a_file_counts_what_is_there_and_changes_nothing(run, folder, spool):
    """Nothing is closed to its writers, noted or locked."""
    file = folder / "orders.jsonl"
    run("spool", "export", str(spool), "--to", str(file))
    before = foreign.look(folder)
    for _ in range(2):
        done = run("redrive", str(file), "--dry-run", "--to", "file:///nowhere", "--json")
        assert sum(each["messages"] for each in json.loads(done.stdout)["messages"]) == 3
    assert foreign.look(folder) == before


BESIDE = [
    (what, end)
    for what in foreign.FOREIGN
    for end in ("-wal", "-shm", ".lock", "-journal")
    if not (what == "zeros" and end != "-journal")  # as a power cut may leave our own
]


@pytest.mark.parametrize(("what", "end"), BESIDE)
def test_what_lies_beside_a_spool_is_looked_at_too(run, folder, spool, what, end):
    """A journal or a lock that is none is neither followed, nor overwritten, nor played back."""
    path = folder / f"{spool.name}{end}"
    path.unlink(missing_ok=True)
    foreign.make(what, path)
    before = foreign.look(folder)
    done = run("spool", "retry", str(spool))
    assert done.exit_code == 2, done.output
    assert path.name in done.stderr
    assert foreign.look(folder) == before
