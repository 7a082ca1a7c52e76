"""Test the detection of the filesystem of a path."""

from pathlib import Path

import pytest

from cacheapp.backends.local.filesystem import filesystem_type, is_network_filesystem

_MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /srv rw - nfs4 server:/export rw,vers=4.2
31 22 0:26 / /srv/local\040disk rw master:3 propagate_from:2 - xfs /dev/sdb1 rw
32 22 0:27 / /mnt/ssh rw - fuse.sshfs me@host:/ rw
33 22 0:28 / /mnt/over rw - fuse.fuse-overlayfs overlay rw
34 22 0:29 / /hidden rw - ext4 /dev/sdc1 rw
35 22 0:30 / /hidden rw - cifs //server/share rw
""".strip()


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/var/cache", "ext4", False),
        ("/srv/cache/not/there/yet", "nfs4", True),
        ("/srvx", "ext4", False),
        ("/srv/local disk/cache", "xfs", False),
        ("/mnt/ssh/cache", "fuse.sshfs", True),
        ("/mnt/over/cache", "fuse.fuse-overlayfs", False),
        ("/hidden", "cifs", True),
    ],
)
def test_the_innermost_and_latest_mount_decides(path: str, kind: str, network: bool) -> None:  # noqa: FBT001
    assert filesystem_type(path, _MOUNTS) == kind
    assert is_network_filesystem(path, _MOUNTS) is network


def test_an_unknown_filesystem_is_not_a_network_filesystem() -> None:
    assert filesystem_type("/anywhere", "") is None
    assert not is_network_filesystem("/anywhere", "")


def test_the_default_is_the_mount_table_of_the_kernel(tmp_path: Path) -> None:
    assert filesystem_type("/proc") == "proc"
    assert filesystem_type(tmp_path / "not" / "there") == filesystem_type(tmp_path)
