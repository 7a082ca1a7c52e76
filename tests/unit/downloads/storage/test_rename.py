"""Publishing a file never replaces another, whatever the file system supports."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.storage import partial


def _no(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture(params=["rename", "link", "neither"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system supports."""
    found: str = request.param
    if found != "rename":
        monkeypatch.setattr(partial, "_renameat2", None)
    if found == "neither":
        monkeypatch.setattr(os, "link", _no(errno.EPERM))
    return found


def test_a_file_gets_its_name_and_the_old_one_is_gone(way: str, tmp_path: Path) -> None:
    old, new = tmp_path / "ä.part", tmp_path / "folder" / "ü\n.bin"
    old.write_text("whole")
    partial.publish(old, new)
    assert new.read_text() == "whole"
    assert not old.exists()


def test_an_existing_name_is_not_replaced(way: str, tmp_path: Path) -> None:
    old, new = tmp_path / "part", tmp_path / "name"
    old.write_text("ours")
    new.write_text("another's")
    with pytest.raises(TransferFailed, match="name already exists; it was not replaced"):
        partial.publish(old, new)
    assert (old.read_text(), new.read_text()) == ("ours", "another's")
    new.unlink()
    new.symlink_to(tmp_path / "nowhere")
    with pytest.raises(TransferFailed, match="already exists"):
        partial.publish(old, new)


def test_a_run_without_its_directory_publishes_nothing(way: str, tmp_path: Path) -> None:
    # In neither way an empty file is left, as docs/download-guarantees.md says, and found at the second try.
    error = TransferFailed if way == "neither" else FileNotFoundError
    with pytest.raises(error):
        partial.publish(tmp_path / "taken away" / "part", tmp_path / "name")
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0] * (way == "neither")


def test_this_system_renames_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    assert partial.rename_new(tmp_path / "old", tmp_path / "new")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_an_unsupported_file_system_is_detected(
    code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> int:
        import ctypes  # noqa: PLC0415

        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(partial, "_renameat2", refuse)
    assert not partial.rename_new(tmp_path / "old", tmp_path / "new")
