"""The machine of an experiment, as far as a reader needs it; never the name of the machine."""

import contextlib
import os
import platform
import sys
import sysconfig
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cacheapp import clock
from cacheapp.lab.results import About
from cacheapp.processes.waiting import pause

_PACKAGES = ("Django", "gunicorn", "lmdb", "diskcache", "django-redis", "redis", "botocore", "moto")


def about() -> About:
    """Return date, machine and versions."""
    return About(
        date=datetime.fromtimestamp(clock.wall_s(), UTC).isoformat(timespec="seconds"),
        machine=f"{cores()} cores, {platform.machine()}, {_memory_gib():.0f} GiB",
        python=python(),
        kernel=f"{platform.system()} {platform.release()}",
        load=round(os.getloadavg()[0], 2),
        versions=_versions(),
        cores=cores(),
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def cores_in_use(window_s: float) -> float:
    """Return how many of the cores of this process all programs together use, over a moment."""
    idle, everything = _ticks()
    pause(window_s)
    idle_later, everything_later = _ticks()
    took = everything_later - everything
    return cores() * (1 - (idle_later - idle) / took) if took else 0.0


def _ticks() -> tuple[int, int]:
    """Return the idle and all ticks of the cores of this process since boot."""
    own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    rows = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    # user nice system idle iowait irq softirq steal; the guest's are in user and nice already
    found = [[int(it) for it in row[1:9]] for row in rows if row and row[0] in own]
    return sum(row[3] + row[4] for row in found), sum(map(sum, found))


def python() -> str:
    """Return which interpreter this is, and whether it has a GIL."""
    gil = "without GIL" if free_threaded() else "with GIL"
    return f"{platform.python_implementation()} {platform.python_version()}, {gil}"


def free_threaded() -> bool:
    """Return whether threads of this interpreter execute at the same time."""
    built = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    return built and not getattr(sys, "_is_gil_enabled", lambda: True)()


def available_mib() -> float:
    """Return how much memory new processes can use without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
