"""How much memory this process's cgroup still allows: what a file in memory may take.

A file on tmpfs is memory of the cgroup that wrote it. A cgroup at its limit kills a process, where a
full file system returns an error. So the room is compared with the limit before it is reserved.
Read for both versions of cgroups, see cgroups(7): every ancestor's limit counts.
"""

from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.paths import exists

_PROC = Path("/proc/self")
_UNLIMITED = 2**60  # version 1 has no word for it: it shows the largest number of whole pages


def memory_available(proc: Path = _PROC) -> int | None:
    """Return the bytes that may still be used; `None` without a limit, or where none can be read.

    Pages of files that the kernel can drop count as available. `proc` is replaced in tests.
    """
    try:
        memberships = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError as exc:
        if is_interruption(exc):
            raise
        return None
    left = [
        available
        for mount, root, is_v2 in _hierarchies(mounts)
        for group in _groups(mount, root, _membership(memberships, is_v2=is_v2))
        if (available := _available(group, is_v2=is_v2)) is not None
    ]
    return min(left, default=None)


def _hierarchies(mounts: list[str]) -> list[tuple[Path, str, bool]]:
    """Return mount point, its root in the hierarchy, and whether it is of version 2."""
    found = []
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, kind, options = left.split(" "), right.split(" ")[0], right.split(" ")[-1]
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            found.append((Path(fields[4]), fields[3], kind == "cgroup2"))
    return found


def _membership(lines: list[str], *, is_v2: bool) -> str | None:
    """Return the path of this process's cgroup in a hierarchy."""
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if (number == "0") if is_v2 else ("memory" in controllers.split(",")):
            return path
    return None


def _groups(mount: Path, root: str, path: str | None) -> list[Path]:
    """Return the directories of the cgroup and its ancestors, as far as they are mounted here.

    In a container the path may be the machine's, and the mount point the container's own cgroup.
    """
    if path is None:
        return []
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    group = mount / path.lstrip("/")
    if ".." in group.parts or not exists(group):
        group = mount
    return [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]


def _available(group: Path, *, is_v2: bool) -> int | None:
    names = (
        ("memory.max", "memory.current")
        if is_v2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    try:
        limit_text, used = (
            (group / names[0]).read_text().strip(),
            int((group / names[1]).read_text()),
        )
        statistics = dict(
            line.split(" ", 1) for line in (group / "memory.stat").read_text().splitlines()
        )
        if limit_text == "max" or int(limit_text) >= _UNLIMITED:
            return None
        droppable = int(statistics.get("inactive_file" if is_v2 else "total_inactive_file", 0))
        return max(0, int(limit_text) - used + droppable)
    except (OSError, ValueError) as exc:
        if is_interruption(exc):
            raise
        return None
