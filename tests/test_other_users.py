"""What lies in folders was put there by other users, and processes run as other users, for real.

As root each pair of users is tried, in processes of theirs. As anybody else there is one user more
that is known to have folders: root. What only root can prepare, `test_safe_files` and the spool's
own tests prove by telling the process that it is another's.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import foreign
from tests.as_user import BODY

ME = os.geteuid()
NOBODY = 65534
PAIRS = [(NOBODY, 0), (0, NOBODY)] if ME == 0 else [(ME, ME)]
"""Who runs Shield, and whose the things are that he finds."""
NAME = "sender+orders.spool"
SPOOL = ["spool 8MiB", "drop"]

pairs = pytest.mark.parametrize(("user", "other"), PAIRS)


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that all may read, since `tmp_path` is below one that is its user's alone."""
    made = Path(tempfile.mkdtemp(prefix="shield-users-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def give(path: Path, user: int, mode: int | None = None) -> Path:
    """Make it, and what is in it, that user's; return it."""
    if mode is not None:
        path.chmod(mode)
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        os.chown(each, user, -1 if ME else user, follow_symlinks=False)
    return path


def folder(path: Path, user: int, mode: int = 0o700) -> Path:
    path.mkdir()
    return give(path, user, mode)


def as_user(user: int, *wanted: Any) -> list[tuple[int | str, str]]:
    """Do these things as that user; what each came to."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.as_user", str(user)],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return [(end, said) for end, said in json.loads(done.stdout)]


def commands(path: Path) -> list[list[str]]:
    """All that is to be done with a spool by hand."""
    said = [["show", str(path)], ["export", str(path)], ["retry", str(path)]]
    spools = [["shield", "spool", *each] for each in (*said, ["purge", str(path), "--yes"])]
    return [
        *spools,
        ["shield", "redrive", str(path)],
        ["shield", "redrive", str(path), "--dry-run"],
    ]


def refuses(user: int, *paths: Path, by_file: bool = True) -> None:
    """Nothing is sent there, nor read from there, by any way, and nothing is touched."""
    before = {path: foreign.look(path.parent) for path in paths}
    publishes = [["publish", str(path.parent), SPOOL] for path in paths]
    if by_file:
        by_url = [[f"overflow file://{path}", "drop"] for path in paths]
        publishes += [
            ["publish", str(path.parent), chain] for path, chain in zip(paths, by_url, strict=True)
        ]
    by_hand = [each for path in paths for each in commands(path)]
    wanted = publishes + by_hand
    expected = ["dropped"] * len(publishes) + [2] * len(by_hand)
    for each, must, (end, said) in zip(wanted, expected, as_user(user, *wanted), strict=True):
        assert end == must, (each, said)
        assert BODY.decode() not in said
    for path in paths:
        assert foreign.look(path.parent) == before[path], path


@pairs
def test_what_is_no_spool_is_not_used_whosever_it_is(base, user, other):
    """Links, pipes, sockets, databases: under the name of a spool, in a folder of one's own."""
    paths = []
    for number, what in enumerate(foreign.FOREIGN):
        lies = folder(base / f"{number}", user) / NAME
        foreign.make(what, lies)
        for each in lies.parent.iterdir():
            give(each, other)
        paths.append(lies)
    refuses(user, *paths, by_file=user != other)


@pairs
def test_a_spool_that_others_prepared_or_may_use_is_not_used(base, user, other):
    """Whole, and Shield's own work, for whoever comes; whatever its mode."""
    modes = [0o600, 0o644, 0o666] if user != other else [0o644, 0o666]
    paths = []
    for mode in modes:
        theirs = folder(base / f"theirs-{mode:o}", other)
        ((fate, _),) = as_user(other, ["publish", str(theirs), SPOOL])
        assert fate == "spooled"
        paths.append(folder(base / f"{mode:o}", user) / NAME)
        (theirs / NAME).rename(paths[-1])
        paths[-1].chmod(mode)
    refuses(user, *paths, by_file=user != other)


@pairs
def test_what_others_put_beside_a_spool_of_ones_own_is_not_used(base, user, other):
    """A journal is played back into the file; a lock says whose it is."""
    owns = [folder(base / f"own{end}", user) for end in (".lock", "-wal", "-shm", "-journal")]
    publishes = [["publish", str(own), SPOOL] for own in owns]
    assert {fate for fate, _ in as_user(user, *publishes)} == {"spooled"}
    for own in owns:
        path = own / f"{NAME}{own.name.removeprefix('own')}"
        path.unlink(missing_ok=True)
        path.write_bytes(b"theirs")
        give(path, other, 0o600 if user != other else 0o666)
    before = foreign.look(base)
    retries = [["shield", "spool", "retry", str(own / NAME)] for own in owns]
    done = as_user(user, *publishes, *retries)
    for own, (fate, said), (end, printed) in zip(owns, done[:4], done[4:], strict=True):
        assert (fate, end) == ("dropped", 2), (own, said, printed)
        assert f"{NAME}{own.name.removeprefix('own')}" in said
        assert f"{NAME}{own.name.removeprefix('own')}" in printed
    assert foreign.look(base) == before


def places(base: Path, user: int, other: int) -> dict[str, Path]:
    """Folders of which others have a say, by what is wrong with them."""
    found = {f"mode {mode:04o}": folder(base / f"{mode:o}", user, mode) for mode in (0o777, 0o1777)}
    found["below one that all may write"] = folder(found["mode 0777"] / "own", user)
    if user == other:
        return {**found, "root's": Path("/usr")}
    theirs = folder(base / "theirs", other, 0o755)
    found |= {"another's": theirs, "another's, closed": folder(base / "closed", other)}
    if other == 0:
        return found
    found["below another's"] = folder(theirs / "own", user)
    found["not there yet, below another's"] = theirs / "new"
    own, planted = folder(base / "own", user), base / "planted"
    planted.symlink_to(own)
    give(planted, other)
    os.chown(own, user, user)
    found["behind another's link"] = planted
    return found


@pairs
def test_a_folder_of_which_others_have_a_say_is_not_used(base, user, other):
    """The action declines, and nothing is made there; the log says why."""
    found = places(base, user, other)
    before = foreign.look(base)
    done = as_user(user, *(["publish", str(place), SPOOL] for place in found.values()))
    for what, (fate, said) in zip(found, done, strict=True):
        assert fate == "dropped", what
        assert "belongs to user" in said or "others may write there" in said, (what, said)
    assert foreign.look(base) == before


@pairs
def test_what_is_made_is_its_users_alone(base, user, other):
    """With a umask of 0 as well; no other user sees a byte of it, except root."""
    home = folder(base / "home", user, 0o755)
    (home / "state").mkdir()
    give(home / "state", user, 0o755)
    made, file = home / "state" / "spool", home / "orders.jsonl"
    chain = [f"overflow file://{file}", "drop"]
    done = as_user(user, ["publish", str(made), SPOOL], ["publish", str(made), chain])
    assert [fate for fate, _ in done] == ["spooled", "overflowed"], done
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [made, file, *made.iterdir()]}
    assert {path: mode for path, mode in modes.items() if mode & 0o077} == {}
    assert {path.lstat().st_uid for path in modes} == {user}
    if other not in (user, 0):
        for (end, said), each in zip(
            as_user(other, *commands(made / NAME)), commands(made / NAME), strict=True
        ):
            assert end != 0, each
            assert BODY.decode() not in said
