"""Messages in files: appended by many, torn by crashes, read back in order."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest

from shield import URL, Envelope, ShieldError
from shield.plugins.transports.file import FileTransport
from shield.plugins.transports.file.formats import FORMATS
from shield.testing import TransportContract
from tests import foreign


class InFiles(TransportContract):
    options = ""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path
        self.numbers = itertools.count()

    def place(self):
        return f"file://{self.folder}/orders-{next(self.numbers)}?{self.options}"


class TestJsonLines(InFiles):
    options = "format=jsonl"


class TestLengthPrefixed(InFiles):
    options = "format=lp&durability=os"


class TestRotatedOften(InFiles):
    """Every few messages begin a new file."""

    options = "rotate=4KiB&durability=os"


@pytest.fixture(params=FORMATS)
def text(tmp_path, request):
    return f"file://{tmp_path}/orders?format={request.param}&rotate=64KiB"


@pytest.fixture
def url(text):
    return URL.parse(text)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "orders"


def send(url: URL, *bodies: bytes) -> list[Exception | None]:
    transport = FileTransport.to(url)
    ends: list[Exception | None] = []
    for body in bodies:
        transport.send(Envelope("topic", body, "kafka"), ends.append)
    transport.close(10)
    return ends


def read(url: URL, most: int = 1000, forget: bool = True) -> list[bytes | None]:
    source = FileTransport.source(url)
    taken = source.take(most, 0)
    for one in taken if forget else ():
        source.forget(one)
    source.close()
    return [one.envelope.body for one in taken]


def test_only_its_owner_may_read_it(url, path):
    """Mode 0600, also of the note beside it."""
    send(url, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read(url)
    assert {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()} == {0o600}


def test_a_line_can_be_read_by_people(path):
    """Text stays text, and what is none is base64."""
    url = URL.parse(f"file://{path}")
    send(url, "für Élise".encode(), b"\xff")
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["destination"], first["body"]) == ("topic", "für Élise")
    assert second["body"] == {"base64": "/w=="}


def test_a_file_that_is_full_gets_a_number(url, path):
    """The oldest has the lowest, and they are read in that order."""
    bodies = [b"%03d" % number * 1000 for number in range(60)]
    for body in bodies:
        assert send(url, body) == [None]
    assert {"orders", "orders.1", "orders.2"} <= {p.name for p in path.parent.iterdir()}
    assert all(p.stat().st_size <= 64 * 1024 for p in path.parent.iterdir())
    assert read(url) == bodies


def test_files_that_are_read_back_are_removed(url, path):
    """And their numbers are not used again: a note of one never means another."""
    send(url, b"a")
    assert read(url) == [b"a"]
    assert {p.name for p in path.parent.iterdir()} == {"orders.redriven", "orders.lock"}
    send(url, b"b")
    assert read(url, forget=False) == [b"b"]
    assert (path.parent / "orders.2").exists()


def test_what_is_written_while_it_is_read_comes_as_well(url):
    """In a file of its own; nothing is read that is still written to."""
    send(url, b"a")
    source = FileTransport.source(url)
    assert [t.envelope.body for t in source.take(10, 0)] == [b"a"]
    send(url, b"b")
    assert source.left() == 1
    assert [t.envelope.body for t in source.take(10, 0)] == [b"b"]
    assert source.left() == 0
    source.close()


def test_one_process_at_a_time_reads_it_back(url):
    """The second is told so."""
    send(url, b"a")
    source = FileTransport.source(url)
    with pytest.raises(ShieldError, match="read back by another process"):
        FileTransport.source(url)
    source.close()
    FileTransport.source(url).close()


def test_a_torn_end_is_skipped_and_reported(url, path, caplog):
    """What a crash has cut is no message; what was written behind it is read."""
    send(url, b"a")
    send(url, b"b")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    send(url, b"c")
    source = FileTransport.source(url)
    assert [t.envelope.body for t in source.take(10, 0)] == [b"a", b"c"]
    assert source.skipped == 1
    assert "skipped" in caplog.text
    assert "orders.1" in caplog.text
    source.close()


def test_a_file_that_was_damaged_is_kept(url, path):
    """Under another name, for whoever wants to look at it."""
    send(url, b"a")
    with path.open("ab") as file:
        file.write(b"\0" * 1000)
    assert read(url) == [b"a"]
    source = FileTransport.source(url)
    assert source.take(1, 0) == []
    source.close()
    assert b"\0" in (path.parent / "orders.1.damaged").read_bytes()


def test_a_file_of_zeros_is_left_as_it_is(url, path):
    """Nothing says that it is Shield's: neither written to nor read back."""
    path.write_bytes(b"\0" * 10_000)
    path.chmod(0o600)
    (error,) = send(url, b"a")
    assert "holds no messages of Shield's" in str(error)
    with pytest.raises(ShieldError, match="holds no messages"):
        FileTransport.source(url)
    assert path.read_bytes() == b"\0" * 10_000
    assert [p.name for p in path.parent.iterdir()] == ["orders"]


def test_a_byte_that_is_flipped_costs_two_messages_at_most(url, path):
    """Its own, and in lines the next one; others come back as they were."""
    bodies = [b"%d-body" % number for number in range(4)]
    send(url, *bodies)
    whole = path.read_bytes()
    kind = FORMATS[dict(url.options)["format"]]
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        with path.open("rb") as file:
            try:
                found = [f.envelope.body for f in kind.read(file, 0) if f.envelope is not None]
            except ShieldError:  # the byte was a version's
                continue
        assert len(set(found) & set(bodies)) >= 2, at


def test_a_later_versions_message_is_refused_and_stays(path):
    """Nothing is removed, however often it is tried."""
    url = URL.parse(f"file://{path}")
    send(url, b"a")
    with path.open("a") as file:
        file.write('{"v": 2, "destination": "x"}\n')
    source = FileTransport.source(url)
    (first,) = source.take(1, 0)
    source.forget(first)
    for _ in range(2):
        with pytest.raises(ShieldError, match="later version"):
            source.take(1, 0)
    source.close()
    assert '"v": 2' in (path.parent / "orders.1").read_text()


def test_a_damaged_note_is_a_clear_error(url, path):
    """It names the note; nothing is read twice by accident."""
    send(url, b"a")
    (path.parent / "orders.redriven").write_text("{")
    with pytest.raises(ShieldError, match=r"orders\.redriven"):
        FileTransport.source(url)


def test_a_folder_that_is_not_there_fails_each_message(tmp_path, caplog):
    """It does not raise, and the log says it once a minute."""
    url = URL.parse(f"file://{tmp_path}/missing/orders")
    ends = send(url, *[b"a"] * 5) + send(url, b"b")
    assert all(isinstance(error, ShieldError) for error in ends)
    assert "No such file or directory" in str(ends[0])
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 2  # one for each transport


def test_a_folder_that_cannot_be_written_to_fails_each_message(tmp_path):
    """A file in its place, as root may write to any folder."""
    (tmp_path / "folder").write_text("")
    (error,) = send(URL.parse(f"file://{tmp_path}/folder/orders"), b"a")
    assert "Not a directory" in str(error)


FULL_DISK = """
import resource, sys
from shield import URL, Envelope
from shield.plugins.transports.file import FileTransport
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
transport = FileTransport.to(URL.parse(sys.argv[1]))
ends = []
for number in range(100):
    transport.send(Envelope("topic", b"%d" % number * 1000, "kafka"), ends.append)
transport.close(10)
print(sum(error is None for error in ends), {str(e) for e in ends if e})
"""


def test_a_full_disk_fails_what_does_not_fit_and_tears_nothing(tmp_path):
    """A limit on the file's size, as a quota: what was reported as written is read back whole."""
    url = f"file://{tmp_path}/orders"
    run = subprocess.run([sys.executable, "-c", FULL_DISK, url], capture_output=True, text=True)
    written, _, errors = run.stdout.partition(" ")
    assert "File too large" in errors, run.stderr
    source = FileTransport.source(URL.parse(url))
    assert len(source.take(100, 0)) == int(written)
    assert source.skipped == 0
    source.close()


KILLED = """
import sys, itertools
from shield import URL, Envelope
from shield.plugins.transports.file import FileTransport
transport = FileTransport.to(URL.parse(sys.argv[1]))
def reported(number):
    def done(error):
        print(number, flush=True)
    return done
for number in range(100_000):
    transport.send(Envelope("topic", b"%d" % number, "kafka"), reported(number))
"""


def test_what_was_reported_survives_a_kill(url, text):
    """Of a process that is killed while it writes, nothing that its callers heard of is missing."""
    killed = subprocess.Popen([sys.executable, "-c", KILLED, text], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    reported = [killed.stdout.readline() for _ in range(500)]
    killed.send_signal(signal.SIGKILL)
    reported += [line for line in killed.stdout if line.endswith(b"\n")]
    killed.wait()
    killed.stdout.close()
    back = set(read(url, 200_000))
    assert {line.strip() for line in reported} <= back


MANY = """
import sys
from shield import URL, Envelope
from shield.plugins.transports.file import FileTransport
transport = FileTransport.to(URL.parse(sys.argv[1]))
ends = []
for number in range(500):
    body = f"{sys.argv[2]}-{number}".encode()
    transport.send(Envelope("topic", body, "kafka"), ends.append)
transport.close(20)
assert ends == [None] * 500, ends
"""


def test_several_processes_share_a_file(tmp_path):
    """Each message once, each process's own in order, over many rotations."""
    url = f"file://{tmp_path}/orders?rotate=8KiB&durability=os"
    writers = [subprocess.Popen([sys.executable, "-c", MANY, url, str(n)]) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    came = [body for body in read(URL.parse(url), 5000) if body is not None]
    for n in range(3):
        own = [body for body in came if body.startswith(b"%d-" % n)]
        assert own == [b"%d-%d" % (n, number) for number in range(500)]


def test_many_messages_share_one_fsync(path, monkeypatch):
    """What comes while the disk is busy goes with the next piece."""
    synced, entered, go_on = [], threading.Event(), threading.Event()

    def slow(file):
        synced.append(file)
        entered.set()
        go_on.wait(60)

    monkeypatch.setattr(os, "fdatasync", slow)
    transport = FileTransport.to(URL.parse(f"file://{path}"))
    ends: list[Exception | None] = []
    transport.send(Envelope("topic", b"first", "kafka"), ends.append)
    assert entered.wait(60)
    for _ in range(500):
        transport.send(Envelope("topic", b"later", "kafka"), ends.append)
    assert ends == []
    go_on.set()
    transport.close(10)
    assert ends == [None] * 501
    assert len(synced) == 2


def test_durability_os_leaves_it_to_the_system(path, monkeypatch):
    """Not one fsync."""
    monkeypatch.setattr(os, "fdatasync", lambda file: pytest.fail("synced"))
    monkeypatch.setattr(os, "fsync", lambda file: pytest.fail("synced"))
    assert send(URL.parse(f"file://{path}?durability=os"), b"a") == [None]


def test_a_caller_that_raises_does_not_end_the_thread(path, caplog):
    """The next message is written all the same."""
    transport = FileTransport.to(URL.parse(f"file://{path}"))
    transport.send(Envelope("topic", b"a", "kafka"), lambda error: 1 / 0)
    while "ZeroDivisionError" not in caplog.text:
        time.sleep(0.01)
    ends: list[Exception | None] = []
    transport.send(Envelope("topic", b"b", "kafka"), ends.append)
    transport.close(10)
    assert ends == [None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file://orders", "names no file"),
        ("file:///", "names no file"),
        ("file:///folder/", "names no file"),
        ("file:///orders?format=xml", "format: found 'xml'; allowed: jsonl, lp"),
        ("file:///orders?durability=none", "durability: found 'none'"),
        ("file:///orders?rotate=1", "rotate: found '1'; allowed is 4KiB or more"),
        ("file:///orders?rotate=much", "not a size"),
        ("file:///orders?rotat=1MiB", "unknown option 'rotat'"),
        ("file:///orders?rotate=1MiB&rotate=2MiB", "is there twice"),
    ],
)
def test_a_wrong_url_says_what_is_allowed(text, expected):
    """Before anything is made."""
    with pytest.raises(ValueError, match=expected):
        FileTransport.to(URL.parse(text))


@pytest.fixture
def own(tmp_path):
    """A folder for one file alone."""
    made = tmp_path / "own"
    made.mkdir(mode=0o700)
    return made


def refuses(folder, url, *said):
    """Send a message: it fails with one line, and nothing in the folder has changed."""
    before = foreign.look(folder)
    (error,) = send(url, b"secret")
    assert isinstance(error, ShieldError)
    assert foreign.look(folder) == before
    for text in said:
        assert text in str(error)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", foreign.FOREIGN)
def test_what_is_not_shields_is_not_written_to(own, what, kind):
    """Its message goes on in its chain."""
    foreign.make(what, own / "orders")
    refuses(own, URL.parse(f"file://{own}/orders?format={kind}"), str(own / "orders"))


def test_a_file_of_the_other_format_is_not_written_to(own):
    """What is written there could not be read."""
    send(URL.parse(f"file://{own}/orders?format=lp"), b"a")
    refuses(own, URL.parse(f"file://{own}/orders?format=jsonl"), "in this format")


def test_a_file_of_another_user_is_not_written_to(own, stranger):
    """Nor one that others may write."""
    url = URL.parse(f"file://{own}/orders")
    send(url, b"a")
    (own / "orders").chmod(0o666)
    refuses(own, url, "mode is 0666")
    (own / "orders").chmod(0o600)
    stranger(own / "orders")
    refuses(own, url, "belongs to user")


def test_a_folder_that_others_may_write_is_not_written_to(own):
    """They could put another file in its place."""
    own.chmod(0o777)
    refuses(own, URL.parse(f"file://{own}/orders"), "mode is 0777")


def test_in_a_sticky_folder_a_file_of_its_own_will_do(own):
    """As in /tmp: nobody else can rename or remove it there; it is for this user alone."""
    own.chmod(0o1777)
    url = URL.parse(f"file://{own}/orders")
    assert send(url, b"a", b"b") == [None, None]
    assert (own / "orders").stat().st_mode & 0o777 == 0o600


def test_in_a_sticky_folder_nothing_of_others_is_used(own, stranger):
    """Neither under its name, nor numbered behind it."""
    own.chmod(0o1777)
    (own / "orders").write_bytes(b"")
    stranger(own / "orders")
    refuses(own, URL.parse(f"file://{own}/orders"), "belongs to user")
    url = URL.parse(f"file://{own}/late")
    send(url, b"a")
    (own / "late.1").write_bytes(b"")
    stranger(own / "late.1")
    with pytest.raises(ShieldError, match="belongs to user"):
        FileTransport.source(url)


@pytest.mark.parametrize("beside", ["orders.1", "orders.lock", "orders.redriven"])
@pytest.mark.parametrize("what", ["symlink", "hard link", "dangling symlink", "FIFO", "folder"])
def test_what_lies_beside_a_file_is_looked_at_too(own, beside, what):
    """A note, a lock or a full file that is none is neither followed nor overwritten."""
    url = URL.parse(f"file://{own}/orders")
    send(url, b"a")
    foreign.make(what, own / beside)
    before = foreign.look(own)
    with pytest.raises(ShieldError, match=beside):
        FileTransport.source(url)
    after = foreign.look(own)
    if beside != "orders.lock":
        after.pop("orders.lock", None)
    assert after == before


def test_a_draft_of_a_note_follows_no_link(own):
    """Its name cannot be guessed."""
    url = URL.parse(f"file://{own}/orders")
    send(url, b"a")
    foreign.make("symlink", own / "orders.redriven.new")
    read(url)
    assert (own / "victim").read_bytes() == foreign.SECRET


HUGE = struct.pack(">4sBxxxLLL", b"\x89SHD", 1, 2**32 - 1, 2**32 - 1, 0)


def test_a_frame_that_claims_gigabytes_costs_no_memory(path):
    """It is torn; the next one is read."""
    url = URL.parse(f"file://{path}?format=lp")
    send(url, b"a")
    whole = path.read_bytes()
    path.write_bytes(whole + HUGE + whole)
    found = []
    assert _peak_of(lambda: found.extend(read(url))) < 4 * 2**20
    assert found == [b"a", b"a"]


def test_a_line_without_end_costs_no_memory(path):
    """It is skipped in pieces."""
    url = URL.parse(f"file://{path}")
    send(url, b"a")
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 20_000_000 + b"\n" + whole)
    source = FileTransport.source(url)
    assert _peak_of(lambda: source.take(10, 0)) < 2**20
    assert source.skipped == 1
    source.close()


def _peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


STRANGE = [
    b"[" * 100_000,
    b'{"v":1,"destination":' + b"[" * 100_000,
    b'{"v":1,"destination":7,"kind":"kafka","mandatory":true,"body":"x"}',
    b'{"v":1,"destination":"a","kind":null,"mandatory":true,"body":"x"}',
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":"yes","body":"x"}',
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":7}',
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":{"base64":"?"}}',
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":"x","timestamp_ms":"now"}',
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":"x","partition":1e999}',
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":"x","timestamp_ms":%d}'
    % 10**30,
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":"x","timestamp_ms":'
    + b"9" * 5000
    + b"}",
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":"x","headers":[["a"]]}',
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":"x","headers":{"a":"b"}}',
    b'{"v":1,"destination":"a","kind":"kafka","mandatory":true,"body":"x","marks":[["a",7]]}',
    b'{"v":"1"}',
    b"{}",
    b"null",
    b"7",
    b"\xff\xfe",
]


def test_a_line_of_anybodys_making_fails_alone(path):
    """Whatever it holds, what stands beside it is read."""
    url = URL.parse(f"file://{path}")
    send(url, b"a")
    whole = path.read_bytes()
    path.write_bytes(whole + b"\n".join([*STRANGE, whole]))
    source = FileTransport.source(url)
    assert [taken.envelope.body for taken in source.take(100, 0)] == [b"a", b"a"]
    assert source.skipped == len(STRANGE)
    source.close()
