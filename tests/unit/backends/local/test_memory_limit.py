"""What a cgroup's limit leaves, on made-up trees of both versions."""

from pathlib import Path

import pytest

from cacheapp.backends.local.memory_limit import memory_available

MIB = 2**20


def _proc(tmp_path: Path, membership: str, mount: str) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(membership + "\n")
    (proc / "mountinfo").write_text(mount + "\n")
    return proc


def _v2(group: Path, limit: str, used: int, droppable: int = 0) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(limit + "\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {droppable}\n")


def _v1(group: Path, limit: int, used: int, droppable: int = 0) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (group / "memory.usage_in_bytes").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"cache 1\ntotal_inactive_file {droppable}\n")


def _mount_v2(tmp_path: Path, root: str = "/") -> str:
    return f"36 35 0:31 {root} {tmp_path}/cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"


def _mount_v1(tmp_path: Path, root: str = "/") -> str:
    return f"36 35 0:31 {root} {tmp_path}/cg rw,nosuid - cgroup cgroup rw,memory"


def test_version_2_subtracts_what_is_used_and_adds_what_can_be_dropped(tmp_path: Path) -> None:
    _v2(tmp_path / "cg/app", str(150 * MIB), 60 * MIB, 10 * MIB)
    assert memory_available(_proc(tmp_path, "0::/app", _mount_v2(tmp_path))) == 100 * MIB


def test_version_1_subtracts_what_is_used_and_adds_what_can_be_dropped(tmp_path: Path) -> None:
    _v1(tmp_path / "cg/app", 150 * MIB, 60 * MIB, 10 * MIB)
    proc = _proc(tmp_path, "4:memory:/app\n3:cpuset:/", _mount_v1(tmp_path))
    assert memory_available(proc) == 100 * MIB


@pytest.mark.parametrize("parent", ["max", str(80 * MIB)], ids=["unlimited", "smaller"])
def test_every_ancestor_counts(tmp_path: Path, parent: str) -> None:
    _v2(tmp_path / "cg/slice", parent, 10 * MIB)
    _v2(tmp_path / "cg/slice/app", str(100 * MIB), 10 * MIB)
    expected = 90 * MIB if parent == "max" else 70 * MIB
    assert memory_available(_proc(tmp_path, "0::/slice/app", _mount_v2(tmp_path))) == expected


def test_a_container_sees_its_own_group_at_the_mount_point(tmp_path: Path) -> None:
    _v1(tmp_path / "cg", 64 * MIB, 4 * MIB)
    proc = _proc(tmp_path, "4:memory:/docker/abc", _mount_v1(tmp_path, "/docker/abc"))
    assert memory_available(proc) == 60 * MIB


def test_a_path_outside_of_the_mount_means_the_mount_point(tmp_path: Path) -> None:
    _v2(tmp_path / "cg", str(64 * MIB), 4 * MIB)
    assert memory_available(_proc(tmp_path, "0::/../other", _mount_v2(tmp_path))) == 60 * MIB


@pytest.mark.parametrize("limit", [2**63 - 4096, 2**60], ids=["largest", "at the bound"])
def test_version_1_without_a_limit(tmp_path: Path, limit: int) -> None:
    _v1(tmp_path / "cg", limit, MIB)
    assert memory_available(_proc(tmp_path, "4:memory:/", _mount_v1(tmp_path))) is None


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert memory_available(tmp_path / "absent") is None
    (tmp_path / "cg").mkdir()
    assert memory_available(_proc(tmp_path, "0::/", _mount_v2(tmp_path))) is None


def test_a_group_beyond_its_limit_has_nothing_left(tmp_path: Path) -> None:
    _v2(tmp_path / "cg", str(MIB), 2 * MIB)
    assert memory_available(_proc(tmp_path, "0::/", _mount_v2(tmp_path))) == 0
