"""Removing a file never leaves the directory, and never follows a symbolic link."""

from pathlib import Path

import pytest

from cacheapp.downloads.storage.removal import find_files, remove_file


def _write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_file_goes_with_the_folders_that_it_leaves_empty(tmp_path: Path) -> None:
    _write(tmp_path / "to" / "a" / "b" / "c")
    kept = _write(tmp_path / "to" / "a" / "d")
    assert remove_file(tmp_path / "to", "a/b/c")
    assert not (tmp_path / "to" / "a" / "b").exists()
    assert kept.exists()
    assert remove_file(tmp_path / "to", "a/d")
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/out", "", ".", "..", "a//b", "./a"])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    outside = _write(tmp_path / "out")
    _write(tmp_path / "to" / "a")
    assert not remove_file(tmp_path / "to", name)
    assert outside.exists()


def test_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    outside = _write(tmp_path / "out" / "x")
    to = tmp_path / "to"
    to.mkdir()
    (to / "folder").symlink_to(tmp_path / "out")
    (to / "file").symlink_to(outside)
    assert not remove_file(to, "folder/x")
    assert not remove_file(to, "file")
    assert outside.exists()
    assert (to / "file").is_symlink()
    assert list(find_files(to)) == []


def test_missing_files_folders_and_unwanted_files_stay(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "b")
    assert not remove_file(tmp_path, "none")
    assert not remove_file(tmp_path, "a")
    assert not remove_file(tmp_path, "a/b/c")
    assert not remove_file(tmp_path, "a/b", lambda found: found.st_size > 1)
    assert list(find_files(tmp_path)) == ["a/b"]


def test_what_jobs_keep_beside_their_files_is_not_found(tmp_path: Path) -> None:
    _write(tmp_path / ".0123456789ab.1" / "x.part")
    _write(tmp_path / ".0123456789ab.sync")
    _write(tmp_path / ".zgroup")
    assert list(find_files(tmp_path)) == [".zgroup"]
