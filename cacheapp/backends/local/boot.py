"""Which boot of the machine this is: what was not flushed before it began cannot be trusted."""

import functools
import subprocess
from pathlib import Path

from cacheapp.errors import StoreUnavailable

_LINUX = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def boot_id() -> str:
    """Return a name that no other boot of this machine has."""
    try:
        return _LINUX.read_text().strip()
    except OSError:
        pass
    try:  # macOS
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise StoreUnavailable(
            f"cannot tell one boot of this machine from another: {_LINUX} cannot be read and "
            "sysctl does not say; nothing was done"
        ) from exc
    return asked.stdout.strip().lower()
