"""On PYTHONPATH, takes away what only Linux has: `/proc`, `/dev/shm`, and some calls. Every process loads it.

What remains is near to macOS; it is no test on macOS.
"""

import asyncio  # noqa: F401 (what chooses by the platform chooses before it changes)
import builtins
import ctypes.util  # noqa: F401
import fcntl
import functools
import io
import multiprocessing.context  # noqa: F401
import os
import socket  # noqa: F401
import struct
import subprocess
import sys
import sysconfig
import tempfile  # noqa: F401
import time
import urllib.request  # noqa: F401
import uuid  # noqa: F401
from typing import Any

sysconfig.get_config_vars()

HIDDEN = ("/proc", "/dev/shm")  # noqa: S108 (not a file name)

for module, names in (
    (os, ("posix_fallocate", "sched_getaffinity", "memfd_create", "eventfd", "pidfd_open")),
    (time, ("CLOCK_BOOTTIME",)),
    (fcntl, ("F_OFD_SETLK", "F_OFD_SETLKW", "F_OFD_GETLK")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def _is_hidden(path: Any) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    text = os.fsdecode(os.fspath(path))
    return any(text == hidden or text.startswith(hidden + "/") for hidden in HIDDEN)


def _hiding(real: Any) -> Any:
    @functools.wraps(real)
    def hidden(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        if _is_hidden(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        return real(path, *args, **kwargs)

    return hidden


for name in ("open", "stat", "lstat", "listdir", "scandir", "readlink", "access", "statvfs"):
    setattr(os, name, _hiding(getattr(os, name)))
builtins.open = io.open = _hiding(builtins.open)

_run = subprocess.run


def _sysctl(*args: Any, **kwargs: Any) -> Any:
    """Answer as macOS does, where the boot has an identifier too."""
    if args and next(iter(args[0])) == "/usr/sbin/sysctl":
        return subprocess.CompletedProcess(args[0], 0, "8B1C0B8A-0000-4000-8000-000000000001\n", "")
    return _run(*args, **kwargs)


subprocess.run = _sysctl

_fcntl = fcntl.fcntl
_LINUX, _DARWIN = struct.Struct("hhqqi"), struct.Struct("qqihh")


def _translated(descriptor: Any, command: int, argument: Any = 0) -> Any:
    """Take and return `struct flock` as macOS lays it out."""
    if command != fcntl.F_GETLK or len(argument) != _DARWIN.size:
        return _fcntl(descriptor, command, argument)
    start, length, pid, kind, whence = _DARWIN.unpack(argument)
    found = _fcntl(descriptor, command, _LINUX.pack(kind, whence, start, length, pid))
    kind, whence, start, length, pid = _LINUX.unpack(found)
    return _DARWIN.pack(start, length, pid, kind, whence)


fcntl.fcntl = _translated
sys.platform = "darwin"
