"""One measuring run at a time on this machine: two that run together measure each other.

Invariant: the process that runs one holds the `flock` of `STATE_DIR/lab/lock`. The kernel releases
it when the process dies, at any instant. The contents (the holder) are for people and for `stop`;
they are written after the lock is acquired, so they may name a dead holder: hence the start time
beside the pid, without which no process is signalled.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import state_dir


@dataclass(frozen=True)
class Holder:
    """The process that holds the exclusive run."""

    pid: int
    born: str
    name: str
    """Of the experiment."""
    stoppable: bool = False
    """Whether a signal stops the run in order, and nothing else: not a worker that runs one itself."""


class Busy(Exception):
    """An experiment runs on this machine already."""

    def __init__(self, holder: Holder | None) -> None:
        detail = f"{holder.name!r} runs in process {holder.pid}" if holder else "one is starting"
        super().__init__(
            f"only one experiment or check runs on a machine at a time, and {detail}; "
            "wait for it to end, or stop it"
        )
        self.holder = holder


def directory() -> Path:
    """Return `STATE_DIR/lab`, the private directory of the lock and the records; create it if needed.

    Raises `StoreUnavailable` if another user could write to it.
    """
    return private_directory(state_dir() / "lab")


def acquire() -> int:
    """Return a file descriptor that holds the exclusive run; raise `Busy` if another process does.

    It can be passed to a child process (`pass_fds`); the lock ends when the last copy is closed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(directory() / "lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Busy(holder()) from None
    return descriptor


def set_holder(descriptor: int, pid: int, name: str, *, stoppable: bool = False) -> Holder:
    """Record, and return, the holder."""
    found = Holder(pid, _born(pid), name, stoppable)
    os.pwrite(descriptor, json.dumps(dataclasses.asdict(found)).ljust(512).encode(), 0)
    return found


def clear_holder(descriptor: int) -> None:
    """Record that there is no holder, before the lock is released."""
    os.ftruncate(descriptor, 0)


@contextlib.contextmanager
def exclusive_run(
    name: str, given: int | None = None, *, stoppable: bool = False
) -> Iterator[Callable[[str], Holder]]:
    """Hold the exclusive run, or raise `Busy`; `given` is a descriptor from `acquire` in another process.

    A process that was given one was started for this run, so a signal may stop it.
    Yields a function that records what runs now, once that is no longer `name`.
    """
    descriptor = acquire() if given is None else given
    os.set_inheritable(descriptor, False)  # noqa: FBT003 (or what is started would have it too)
    stoppable = stoppable or given is not None
    try:
        set_holder(descriptor, os.getpid(), name, stoppable=stoppable)
        yield lambda now: set_holder(descriptor, os.getpid(), now, stoppable=stoppable)
    finally:
        clear_holder(descriptor)
        os.close(descriptor)


def holder() -> Holder | None:
    """Return the holder; `None` if there is none, or it is not recorded yet."""
    try:
        found = Holder(**json.loads((directory() / "lock").read_text()))
    except (OSError, ValueError, TypeError) as exc:  # empty, or just being written
        if is_interruption(exc):
            raise
        return None
    return found if found.born and found.born == _born(found.pid) else None


def stop() -> Holder | None:
    """Signal the holder to stop, and return it; `None` if there is none that can be stopped.

    The process is pinned first and recognised then, so a pid that was reused is never signalled.
    """
    found = holder()
    if found is None or not found.stoppable:
        return None
    with contextlib.suppress(ProcessLookupError):
        pinned = os.pidfd_open(found.pid)
        try:
            if _born(found.pid) == found.born:
                signal.pidfd_send_signal(pinned, signal.SIGTERM)
                return found
        finally:
            os.close(pinned)
    return None


def _born(pid: int) -> str:
    """Return boot and start time, which no other process shares; empty if it is gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError as exc:
        if is_interruption(exc):
            raise
        return ""
    state, started_ticks = fields[0], fields[19]
    return "" if state in {"Z", "X"} else f"{boot}:{started_ticks}"
