"""Find the type of the filesystem of a path. On some, locks or shared memory fail silently."""

import os
from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.paths import real_path

_MOUNTS = Path("/proc/self/mountinfo")

# POSIX locks or mmap differ between the machines that mount these, or are unreliable on one.
_NETWORK = frozenset(
    [
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "smb3", "smbfs", "vboxsf"),
    ]
)
# The part after the dot names the FUSE filesystem. These keep their data on this machine:
_LOCAL_FUSE = frozenset(["fuse.fuse-overlayfs", "fuse.encfs", "fuse.gocryptfs", "fuse.ntfs-3g"])


def filesystem_type(path: str | os.PathLike[str], mountinfo: str | None = None) -> str | None:
    """Return the type of the filesystem that holds `path`, such as `ext4`; `None` if unknown.

    If the path does not exist, this is the filesystem on which it would be created. Tests pass
    `mountinfo` in place of the kernel's table.
    """
    if mountinfo is None:
        try:
            mountinfo = _MOUNTS.read_text(errors="surrogateescape")
        except OSError as exc:
            if is_interruption(exc):
                raise
            return None
    wanted = real_path(path)
    best, found = -1, None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:  # noqa: PLR2004 (see proc_pid_mountinfo(5))
            continue
        mount = _unescape(fields[4])
        # Not ">": if two mounts have one mount point, the later one hides the earlier.
        if _contains(mount, wanted) and len(mount) >= best:
            best, found = len(mount), right.split(" ")[0]
    return found


def is_network_filesystem(path: str | os.PathLike[str], mountinfo: str | None = None) -> bool:
    """Return True if `path` is on a filesystem that other machines may change or lock."""
    found = filesystem_type(path, mountinfo)
    if found is None:
        return False
    if found.startswith("fuse."):
        return found not in _LOCAL_FUSE
    return found in _NETWORK


def _contains(mount: str, path: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")


def _unescape(field: str) -> str:
    """Decode the octal escapes of spaces, tabs, newlines and backslashes."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
