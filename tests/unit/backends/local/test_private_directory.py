"""Test that a private directory is created for its owner only."""

import os
from pathlib import Path

import pytest

from cacheapp.backends.local.private_directory import private_directory
from cacheapp.errors import StoreUnavailable


def test_it_is_created_for_its_owner_only(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o720], ids=["world", "group"])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(StoreUnavailable, match=f"mode {mode:04o}.*expected 0700"):
        private_directory(tmp_path / "open")


def test_a_file_at_the_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot create the directory"):
        private_directory(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of a directory")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, -1)
    with pytest.raises(StoreUnavailable, match="belongs to user 12345"):
        private_directory(tmp_path / "theirs")
