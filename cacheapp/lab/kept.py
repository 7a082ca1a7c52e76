"""What is kept in `STATE_DIR/lab`: how far the run is, and the last result and drawing of each.

Any process of this host may read it at any time: each file is written beside and renamed, so it
is whole, the old one or the new one. Only who has the turn writes.
"""

import dataclasses
import enum
import json
import os
from dataclasses import dataclass

from cacheapp import clock
from cacheapp.lab.bench import Progress
from cacheapp.lab.results import Result
from cacheapp.processes import turn

_EVERY_S = 0.3


class State(enum.StrEnum):
    """What became of the last run."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    """It says that it runs, and its process is gone: killed."""


@dataclass(frozen=True)
class Status:
    """The last run on this host, whoever started it, from a page or a terminal."""

    names: tuple[str, ...]
    """The experiments of this run, in order."""
    scale: str
    pid: int
    """0 until the process that was started has taken over."""
    began_s: float
    """Wall time."""
    state: State
    progress: Progress | None = None
    error: str = ""


def status() -> Status | None:
    """Return the last run, or `None` if there was none. Never takes the turn."""
    while (found := _read()) is not None and found.state is State.RUNNING:
        holder = turn.holder()
        if holder is not None and found.pid in (0, holder.pid):
            break
        # It may have ended between the two looks; then what it wrote last says how.
        if _read() == found:
            return dataclasses.replace(found, state=State.LOST)
    return found


def _read() -> Status | None:
    try:
        raw = json.loads((turn.directory() / "status.json").read_text())
        progress = Progress(**raw["progress"]) if raw["progress"] else None
        said = {"names": tuple(raw["names"]), "state": State(raw["state"]), "progress": progress}
        return Status(**{**raw, **said})
    except (OSError, ValueError, TypeError, KeyError):  # none yet, or of another version
        return None


def result(name: str) -> Result | None:
    """Return the last result of an experiment on this host; `None` if there is none."""
    try:
        return Result.from_json((turn.directory() / f"{name}.json").read_text())
    except (OSError, ValueError):  # none yet, or of an older version
        return None


def drawing(name: str) -> str | None:
    """Return the SVG of that result, to stand inside a page; `None` if there is none."""
    try:
        return (turn.directory() / f"{name}.svg").read_text()
    except OSError:
        return None


def begin(names: list[str], scale: str, pid: int = 0) -> Status:
    """Note that a run begins; by the one who has the turn."""
    found = Status(tuple(names), scale, pid, clock.wall_s(), State.RUNNING)
    _write(found)
    return found


def _write(status: Status) -> None:
    replace("status.json", json.dumps(dataclasses.asdict(status)))


class Keeper:
    """Writes it down. Used by the process that has the turn."""

    def __init__(self, names: list[str], scale: str) -> None:
        self._status = begin(names, scale, os.getpid())
        self._wrote_s = clock.monotonic_s()
        self._step = ""

    def progress(self, now: Progress) -> None:
        """Note how far it is: each new step, and a few times a second."""
        new = now.step != self._step
        if new or clock.monotonic_s() - self._wrote_s > _EVERY_S:
            self._step = now.step
            self._wrote_s = clock.monotonic_s()
            self._status = dataclasses.replace(self._status, progress=now)
            _write(self._status)

    def keep(self, result: Result, drawing: str | None) -> None:
        """Keep a result and its drawing; without one, none of an older result stays."""
        replace(f"{result.name}.json", result.to_json())
        if drawing is None:
            (turn.directory() / f"{result.name}.svg").unlink(missing_ok=True)
        else:
            replace(f"{result.name}.svg", drawing)

    def end(self, state: State, error: str = "") -> None:
        """Note how it ended."""
        self._status = dataclasses.replace(self._status, state=state, error=error)
        _write(self._status)


def replace(name: str, text: str) -> None:
    """Write a file of the lab's directory so that readers see all of it or the old one."""
    place = turn.directory() / name
    beside = place.with_name(f".{name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(place)
