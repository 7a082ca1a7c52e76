"""Records of background runs in `STATE_DIR/lab`: how far the last one is, and files beside it.

Any process of this machine may read a record at any time: each file is written under another name
and renamed, so a reader finds the old contents or the new ones. Only the process that holds the
exclusive run writes.
"""

import dataclasses
import enum
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cacheapp import clock
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.processes import exclusive_run

LOG = "log"
"""What the last run that a page started has printed: emptied before that run is recorded."""


class RunState(enum.StrEnum):
    """The state of the last run."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    """Recorded as running, but its process is gone: it was killed."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The last run on this machine; kinds of runs add what they record."""

    pid: int
    """0 until the process that was started has taken over."""
    began_s: float = dataclasses.field(default_factory=clock.wall_s)
    """Wall time."""
    state: RunState = RunState.RUNNING
    error: str = ""


StatusT = TypeVar("StatusT", bound=RunStatus)


class StatusFile(Generic[StatusT]):
    """The file that holds the status of the last run of one kind."""

    def __init__(self, name: str, parse: Callable[[Mapping[str, Any]], StatusT]) -> None:
        self._name = name
        self._parse = parse

    def read(self) -> StatusT | None:
        """Return the last status; `None` if there is none, or one of another version.

        A run is `LOST` if its process is gone without recording an end. One whose process ended before it
        recorded anything, because it lacks a package for example, has `FAILED` with its last line.
        """
        while (found := self._read()) is not None and found.state is RunState.RUNNING:
            holder = exclusive_run.holder()
            if holder is not None and found.pid in {0, holder.pid}:
                break
            # The run may have ended between the two reads; its last record then names the end.
            if self._read() == found:
                said = (read_text(LOG) or "").split("\n") if found.pid == 0 else []
                error = next((line for line in reversed(said) if line.strip()), "")
                state = RunState.FAILED if error else RunState.LOST
                return dataclasses.replace(found, state=state, error=error)
        return found

    def _read(self) -> StatusT | None:
        raw = read_json(self._name)
        try:
            return None if raw is None else self._parse({**raw, "state": RunState(raw["state"])})
        except (TypeError, KeyError, ValueError):  # written by another version
            return None

    def write(self, status: StatusT) -> StatusT:
        """Replace the status; return it."""
        replace(self._name, json.dumps(dataclasses.asdict(status)))
        return status


class StatusRecorder(Generic[StatusT]):
    """Records the status of a run in progress; for the process that holds the exclusive run."""

    def __init__(self, file: StatusFile[StatusT], status: StatusT) -> None:
        self._file = file
        self._status = file.write(status)

    def update(self, **changes: Any) -> None:
        """Record changed fields of the status."""
        self._status = self._file.write(dataclasses.replace(self._status, **changes))

    def end(self, state: RunState, error: str = "") -> None:
        """Record how the run ended; only the first call has an effect."""
        if self._status.state is RunState.RUNNING:
            self.update(state=state, error=error)


def read_json(name: str) -> dict[str, Any] | None:
    """Return the object in a file of the directory; `None` where there is none."""
    text = read_text(name)
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def read_text(name: str) -> str | None:
    """Return the contents of a file of the directory; `None` where there is none."""
    try:
        return (exclusive_run.directory() / name).read_text()
    except OSError as exc:
        if is_interruption(exc):
            raise
        return None


def replace(name: str, text: str) -> None:
    """Replace a file of the directory in one step: a reader finds all of it, or the old one."""
    path = exclusive_run.directory() / name
    beside = path.with_name(f".{name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # left by a process of the same pid
    with beside.open("x") as file:  # never through a link
        file.write(text)
    beside.replace(path)
