"""What kind of filesystem a path is on: locks and shared memory fail in silence on some."""

import os
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")

# POSIX locks or mmap that several hosts see differently, or that one host cannot rely on.
_NETWORK = frozenset(
    [
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "smb3", "smbfs", "vboxsf"),
    ]
)
# FUSE filesystems say what is behind them after the dot; those that keep data on this host:
_LOCAL_FUSE = frozenset(["fuse.fuse-overlayfs", "fuse.encfs", "fuse.gocryptfs", "fuse.ntfs-3g"])


def filesystem_type(path: str | os.PathLike[str], mountinfo: str | None = None) -> str | None:
    """Return the type of the filesystem that holds `path`, such as `ext4`; `None` if unknown.

    The path need not exist: what counts is where it would be made. `mountinfo` stands for the
    kernel's table in tests.
    """
    if mountinfo is None:
        try:
            mountinfo = _MOUNTS.read_text(errors="surrogateescape")
        except OSError:
            return None
    wanted = os.path.realpath(path)
    best, found = -1, None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:  # noqa: PLR2004 (see proc_pid_mountinfo(5))
            continue
        mount = _unescape(fields[4])
        # Not "<": of two mounts on one place, the later one hides the earlier.
        if _holds(mount, wanted) and len(mount) >= best:
            best, found = len(mount), right.split(" ")[0]
    return found


def is_network_filesystem(path: str | os.PathLike[str], mountinfo: str | None = None) -> bool:
    """Return whether `path` is on a filesystem that other hosts may change or lock."""
    found = filesystem_type(path, mountinfo)
    if found is None:
        return False
    if found.startswith("fuse."):
        return found not in _LOCAL_FUSE
    return found in _NETWORK


def _holds(mount: str, path: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")


def _unescape(field: str) -> str:
    """Undo the octal escapes of blanks, newlines and backslashes."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
