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
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


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
