"""Folders and files that others may have had a hand in are not used, and not touched."""

from __future__ import annotations

import os
import stat

import pytest

from shield.safe_files import UnsafeFileError, check_folder, make_folder, open_file
from tests import foreign


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "own"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def file(folder):
    made = folder / "file"
    made.write_bytes(b"kept")
    made.chmod(0o600)
    return made


def opened(path, flags=os.O_RDWR | os.O_CREAT, **how):
    os.close(open_file(path, flags, **how))


def test_a_file_that_is_made_is_its_users_alone(folder):
    """Whatever the umask says."""
    before = os.umask(0)
    try:
        opened(folder / "new")
        make_folder(folder / "a" / "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "a" / "b").stat().st_mode) == 0o700


KINDS = ["symlink", "hard link", "dangling symlink", "folder", "FIFO", "socket", "device"]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT])
@pytest.mark.parametrize("kind", KINDS)
def test_only_a_plain_file_with_one_name_is_opened(folder, kind, flags):
    """Nothing waits for a FIFO's other end, or follows a link, or makes what one points to."""
    foreign.make(kind, folder / "name")
    before = foreign.look(folder)
    with pytest.raises(UnsafeFileError, match=r"name: (is a|has 2)"):
        opened(folder / "name", flags)
    assert foreign.look(folder) == before


def test_a_file_of_another_user_is_refused(file, stranger):
    """The error says whose it is, and what to do."""
    stranger(file)
    with pytest.raises(UnsafeFileError, match=r"belongs to user .* run this as that user"):
        opened(file)
    assert file.read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("mode", "private", "refused"),
    [
        (0o600, True, False),
        (0o644, True, True),
        (0o640, True, True),
        (0o644, False, False),
        (0o666, False, True),
        (0o602, False, True),
    ],
)
def test_a_file_that_others_may_use_is_refused(file, mode, private, refused):
    """May write, or, where it is private, may read."""
    file.chmod(mode)
    if not refused:
        opened(file, private=private)
        return
    with pytest.raises(UnsafeFileError, match=f"mode is {mode:04o}"):
        opened(file, private=private)


def test_a_group_counts_as_others_unless_it_is_ones_own(file, monkeypatch):
    """Who shares a group with the process is trusted by its user."""
    file.chmod(0o660)
    opened(file)
    monkeypatch.setattr(os, "getegid", lambda: file.stat().st_gid + 1)
    monkeypatch.setattr(os, "getgroups", list)
    with pytest.raises(UnsafeFileError, match="others may write"):
        opened(file)


def test_a_folder_of_another_user_is_refused(folder, stranger):
    """He may put anything there."""
    stranger(folder)
    for check in (check_folder, make_folder):
        with pytest.raises(UnsafeFileError, match="belongs to user"):
            check(folder)


def test_a_folder_below_one_of_another_user_is_refused(folder, stranger):
    """He may put another folder in its place."""
    (folder / "below").mkdir(mode=0o700)
    stranger(folder)
    for name in ("below", "new"):
        with pytest.raises(UnsafeFileError, match="belongs to user"):
            make_folder(folder / name)
    assert [path.name for path in folder.iterdir()] == ["below"]


def test_a_folder_that_a_stranger_has_linked_to_is_refused(folder, tmp_path, stranger):
    """Today it points here, tomorrow elsewhere."""
    (tmp_path / "link").symlink_to(folder)
    check_folder(tmp_path / "link")
    stranger(tmp_path / "link")
    with pytest.raises(UnsafeFileError, match="belongs to user"):
        check_folder(tmp_path / "link")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_that_others_may_write_is_refused(folder, mode):
    """A sticky one too: who may put a journal beside a file has a say in what it holds."""
    folder.chmod(mode)
    with pytest.raises(UnsafeFileError, match=f"mode is {mode:04o}"):
        check_folder(folder)
    with pytest.raises(UnsafeFileError, match=f"mode is {mode:04o}"):
        make_folder(folder)


def test_on_the_way_a_sticky_folder_is_fine_and_an_open_one_is_not(folder):
    """In /tmp nobody can rename what is another's."""
    (folder / "below").mkdir(mode=0o700)
    folder.chmod(0o1777)
    make_folder(folder / "below")
    folder.chmod(0o777)
    with pytest.raises(UnsafeFileError, match="mode is 0777"):
        make_folder(folder / "below")


def test_links_that_lead_in_a_circle_are_an_error(folder):
    """And end."""
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    with pytest.raises(OSError, match="symbolic links"):
        check_folder(folder / "a")


def test_what_is_no_folder_is_an_error(file):
    """Whether it is to be one, or to have one below."""
    with pytest.raises(NotADirectoryError):
        check_folder(file)
    with pytest.raises(NotADirectoryError):
        make_folder(file / "below")
