"""Groups of processes with a memory limit: cgroups of either version. Requires root."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cacheapp.processes.waiting import until
from tests.required import skip_or_fail

_HIERARCHIES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
)
_JOIN = "import os, sys; open(sys.argv[1], 'w').write('0'); os.execv(sys.argv[2], sys.argv[2:])"


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """Make a cgroup with a memory limit in bytes, of either version; skip where there is none."""
    for base, name, _ in _HIERARCHIES:
        group = base / f"cacheapp-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / name).exists():
                (group / name).write_text(str(limit))
                yield group
                return
        finally:
            removed = functools.partial(_is_removed, group)
            until(removed, f"the end of the processes in {group}")
    skip_or_fail("needs root and a memory cgroup; run as root: make test")


def _is_removed(group: Path) -> bool:
    with contextlib.suppress(OSError):  # a killed process is in it for a moment longer
        group.rmdir()
    return not group.exists()


def in_cgroup(group: Path, command: Sequence[str]) -> list[str]:
    """Return the command, run by a process that has joined the group."""
    return [sys.executable, "-c", _JOIN, str(group / "cgroup.procs"), *command]


def oom_kills(group: Path) -> int:
    """Return how many processes of the group the kernel killed, as their memory did not suffice."""
    for _, _, name in _HIERARCHIES:
        if (group / name).exists():
            lines = (group / name).read_text().splitlines()
            return int(dict(line.split() for line in lines)["oom_kill"])
    raise FileNotFoundError(group)
