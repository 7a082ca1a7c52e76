"""Child processes of a test: forked by Python or by C code, and their ends."""

import ctypes
import os
import platform
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from cacheapp.processes.waiting import until

HUNG = -signal.SIGKILL
_fork_in_c: Callable[[], int] = ctypes.PyDLL(None).fork  # no hook of Python runs


def in_child(work: Callable[[], object]) -> int:
    """Fork; return the pid of a child that exits with 0 if `work()` is true, else with 1."""
    return _run_in_child(os.fork, work)


def in_child_of_c(work: Callable[[], object]) -> int:
    """Fork in C, as uWSGI does without `lazy-apps`; otherwise as `in_child`."""
    return _run_in_child(_fork_in_c, work)


def _run_in_child(fork: Callable[[], int], work: Callable[[], object]) -> int:
    pid = fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return pid


def end_of(pid: int, within_s: float = 100) -> int:
    """Return the exit code of a child; kill it and return `HUNG` if it does not end."""
    ended: list[int] = []

    def gone() -> bool:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended.append(os.waitstatus_to_exitcode(status))
        return bool(found)

    try:
        until(gone, f"child {pid} to end", within_s)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return HUNG
    return ended[0]


_SLEEPS = {"x86_64": {"35", "230"}, "aarch64": {"101", "115"}}
"""The numbers of the system calls nanosleep and clock_nanosleep."""


def is_asleep(thread: threading.Thread) -> bool:
    """Return True if the thread sleeps in C code, and so does not wait for the interpreter lock.

    A fork in C would copy that lock with its waiters, which do not exist in the child.
    """
    call = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()[0]
    return call in _SLEEPS[platform.machine()]
