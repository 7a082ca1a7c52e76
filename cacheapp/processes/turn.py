"""One experiment at a time on this host: two that run together measure each other.

Invariant: whoever runs an experiment holds the lock (`flock`) of `STATE_DIR/lab/turn`. The kernel
lets go of it when its holder dies, at any instant. What the file says (who) is for people and for
`stop`; it is written after the lock was taken, so it may be a dead holder's: hence the birth mark
beside the pid, without which nobody is signalled.
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

from cacheapp.conf import state_dir


@dataclass(frozen=True)
class Holder:
    """Who has the turn."""

    pid: int
    born: str
    name: str
    """Of the experiment."""
    stoppable: bool = False
    """Whether a signal stops it in order, and it alone: not a worker that runs one itself."""


class Busy(Exception):
    """An experiment runs on this host already."""

    def __init__(self, holder: Holder | None) -> None:
        who = f"{holder.name!r} runs in process {holder.pid}" if holder else "one is just starting"
        super().__init__(
            f"only one experiment at a time runs on a host, and {who}; wait for it, or stop it"
        )
        self.holder = holder


def directory() -> Path:
    """Return the lab's directory of small shared files, made if need be."""
    found = state_dir() / "lab"
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def take() -> int:
    """Return the file descriptor that holds the turn; raise `Busy` if another one does.

    It can be given to a child process (`pass_fds`); the turn ends when the last copy is closed.
    """
    descriptor = os.open(directory() / "turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Busy(holder()) from None
    return descriptor


def say_who(descriptor: int, pid: int, name: str, *, stoppable: bool = False) -> Holder:
    """Write down, and return, who has the turn."""
    found = Holder(pid, _born(pid), name, stoppable)
    os.pwrite(descriptor, json.dumps(dataclasses.asdict(found)).ljust(512).encode(), 0)
    return found


def say_nobody(descriptor: int) -> None:
    """Write down that nobody has the turn, before it is given up."""
    os.ftruncate(descriptor, 0)


@contextlib.contextmanager
def turn(
    name: str, given: int | None = None, *, stoppable: bool = False
) -> Iterator[Callable[[str], Holder]]:
    """Have the turn, or raise `Busy`; `given` is a descriptor from `take` in another process.

    A process to which it was given was started for this, so it may be stopped by a signal.
    Yields a function that says what is run now, if that is no longer `name`.
    """
    descriptor = take() if given is None else given
    os.set_inheritable(descriptor, False)  # noqa: FBT003 (or what is started would have it too)
    stoppable = stoppable or given is not None
    try:
        say_who(descriptor, os.getpid(), name, stoppable=stoppable)
        yield lambda now: say_who(descriptor, os.getpid(), now, stoppable=stoppable)
    finally:
        say_nobody(descriptor)
        os.close(descriptor)


def holder() -> Holder | None:
    """Return who has the turn, or `None` if nobody has, or has not said so yet."""
    try:
        found = Holder(**json.loads((directory() / "turn").read_text()))
    except (OSError, ValueError, TypeError):  # empty, or just being written
        return None
    return found if found.born and found.born == _born(found.pid) else None


def stop() -> Holder | None:
    """Ask who has the turn to stop, and return it; `None` if nobody has who can be asked.

    The process is pinned first and then recognised, so a number that was given to another process
    meanwhile is never signalled.
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
    """Return what no other process has in common with this one; empty if it is gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    state, started_ticks = fields[0], fields[19]
    return "" if state in {"Z", "X"} else f"{boot}:{started_ticks}"
