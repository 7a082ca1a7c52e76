"""Claims of a directory by PID namespaces, on real processes."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheapp.backends.local import pid_namespace
from cacheapp.backends.local.pid_namespace import Claim, remove_stale_claims
from cacheapp.errors import StoreUnavailable

_HOLD = """
import sys
from pathlib import Path
from cacheapp.backends.local import pid_namespace
pid_namespace.namespace_name = lambda: sys.argv[2]
try:
    claim = pid_namespace.Claim(Path(sys.argv[1]))
except Exception as exc:
    print(exc, flush=True)
else:
    print("held", flush=True)
sys.stdin.read()
"""


def _as(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(pid_namespace, "namespace_name", lambda: name)


class _Other:
    """A process of another namespace that claims the directory until it is stopped."""

    def __init__(self, directory: Path, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(directory), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @functools.cached_property
    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[_Other]:
    process = _Other(tmp_path, "boot-2")
    assert process.answer == "held"
    yield process
    process.kill()


def test_processes_of_one_namespace_share_a_directory(tmp_path: Path) -> None:
    claims = [Claim(tmp_path), Claim(tmp_path)]
    assert len(list(tmp_path.iterdir())) == 1
    assert not claims[0].is_open_elsewhere(), "the other one may still wait for the lock"
    claims[1].mark_open()
    assert claims[0].is_open_elsewhere()
    assert not claims[1].is_open_elsewhere()
    claims[1].release()
    assert not claims[0].is_open_elsewhere()
    claims[0].release()


def test_a_claim_whose_file_was_removed_is_noticed(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    assert claim.is_linked()
    next(tmp_path.iterdir()).unlink()
    assert claim.is_held()
    assert not claim.is_linked()
    claim.release()


def test_another_namespace_is_refused_while_a_claim_is_held(
    tmp_path: Path, other: _Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(monkeypatch, "boot-1")
    with pytest.raises(StoreUnavailable, match=r"another PID namespace.*LOCATION of its own"):
        Claim(tmp_path)


def test_a_refused_process_leaves_no_claim(
    tmp_path: Path, other: _Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(monkeypatch, "boot-1")
    with pytest.raises(StoreUnavailable):
        Claim(tmp_path)
    third = _Other(tmp_path, "boot-2")  # of the namespace that holds it
    assert third.answer == "held"
    third.kill()


def test_the_claim_of_a_killed_process_ends_with_it(
    tmp_path: Path, other: _Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.kill()
    _as(monkeypatch, "boot-1")
    Claim(tmp_path).release()


def test_files_of_namespaces_without_processes_are_removed(
    tmp_path: Path, other: _Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(monkeypatch, "boot-1")
    (tmp_path / "namespace-boot-3").touch()
    remove_stale_claims(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["namespace-boot-2"]


def test_a_claim_is_taken_again_where_its_file_was_removed_meanwhile(tmp_path: Path) -> None:
    first = Claim(tmp_path)
    (file,) = tmp_path.iterdir()
    file.unlink()
    second = Claim(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    first.release()
    second.release()


def test_a_claim_whose_descriptor_was_closed_is_not_held(tmp_path: Path) -> None:
    lost = Claim(tmp_path)
    assert lost.is_held()
    descriptor = next(
        int(name)
        for name in os.listdir("/proc/self/fd")  # noqa: PTH208
        if os.path.exists(f"/proc/self/fd/{name}")  # noqa: PTH110
        and Path(f"/proc/self/fd/{name}").samefile(next(tmp_path.iterdir()))
    )
    os.close(descriptor)
    assert not lost.is_held()
    with (tmp_path / "other").open("w"):  # has its number now
        assert not lost.is_held()


def test_the_name_tells_boot_and_namespace() -> None:
    name = pid_namespace.namespace_name()
    assert name is not None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert name == f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"


def test_two_that_come_at_once_never_both_claim(tmp_path: Path) -> None:
    for _ in range(10):
        pair = [_Other(tmp_path, "boot-1"), _Other(tmp_path, "boot-2")]
        assert [one.answer for one in pair].count("held") <= 1
        for one in pair:
            one.kill()
