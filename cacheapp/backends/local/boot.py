"""Identify the current boot of the machine, as unflushed files of an earlier one are unreliable."""

import functools
import subprocess
from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.errors import StoreUnavailable

_LINUX = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def boot_id() -> str:
    """Return an identifier that is unique to this boot."""
    try:
        return _LINUX.read_text().strip()
    except OSError as exc:
        if is_interruption(exc):
            raise
    try:  # macOS
        found = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        if is_interruption(exc):
            raise
        raise StoreUnavailable(
            f"cannot identify the current boot of this machine: {_LINUX} is not readable and "
            "sysctl kern.bootsessionuuid failed; nothing was done"
        ) from exc
    return found.stdout.strip().lower()
