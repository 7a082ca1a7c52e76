"""Run code as another user of this machine, to attack what is private. Requires root."""

import contextlib
import grp
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.required import skip_or_fail

UID = 54_321
"""A user that owns nothing, and is in no group."""


def require_root() -> None:
    """Skip the test without root; fail in CI."""
    if os.geteuid() != 0:
        skip_or_fail("needs root, to act as another user; run as root: make test")


def groups_of_a_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each group be a team's. An ordinary user has a group of their own, which may write."""
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("team", "x", gid, [])))


def fork_as_other_user(work: Callable[[], object]) -> int:
    """Fork a process that runs `work` as another user; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setgroups([])
        os.setgid(UID)
        os.setuid(UID)
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 (the process ends here)
        traceback.print_exc()
        os._exit(1)


def as_other_user(work: Callable[[], object]) -> None:
    """Run `work` as another user, to its end; fail if it raises."""
    _, status = os.waitpid(fork_as_other_user(work), 0)
    assert status == 0, "the other user failed: see the traceback"


@contextlib.contextmanager
def reachable_directory() -> Iterator[Path]:
    """Yield a new directory that other users can reach and read; pytest's own are private."""
    path = Path(tempfile.mkdtemp(prefix="cacheapp-tests-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)
