"""The lab's records: the status of the last run, the last result and drawing of each experiment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cacheapp import clock
from cacheapp.lab.bench import ExperimentProgress, Scale
from cacheapp.lab.results import Result
from cacheapp.lab.run import find
from cacheapp.processes import background, exclusive_run
from cacheapp.processes.exclusive_run import Holder
from cacheapp.processes.run_record import (
    RunStatus,
    StatusFile,
    StatusRecorder,
    read_text,
    replace,
)

_EVERY_S = 0.3


@dataclass(frozen=True, kw_only=True)
class LabStatus(RunStatus):
    """The last run of experiments on this machine, started from a page or a terminal."""

    names: tuple[str, ...]
    """The experiments of this run, in order."""
    scale: str
    progress: ExperimentProgress | None = None


def _parse(raw: Mapping[str, Any]) -> LabStatus:
    progress = ExperimentProgress(**raw["progress"]) if raw["progress"] else None
    return LabStatus(**{**raw, "names": tuple(raw["names"]), "progress": progress})


_file = StatusFile("status.json", _parse)
status = _file.read


def start(name: str, *, full: bool = False) -> Holder:
    """Start an experiment in a process of its own and return at once.

    Raises `Busy`, or `UnknownExperiment`. `status()` returns its progress, `result(name)` its result.
    """
    find(name)
    scale = Scale.FULL if full else Scale.USUAL
    arguments = [name, *(["--full"] if full else [])]
    return background.start_command("lab", arguments, name, lambda: begin([name], scale))


def begin(names: list[str], scale: str) -> LabStatus:
    """Record that a run is about to start; for the holder of the exclusive run."""
    return _file.write(LabStatus(names=tuple(names), scale=scale, pid=0))


def result(name: str) -> Result | None:
    """Return the last result of an experiment on this machine; `None` if there is none."""
    text = read_text(f"{name}.json")
    try:
        return None if text is None else Result.from_json(text)
    except ValueError:  # of an older version
        return None


def drawing(name: str) -> str | None:
    """Return the SVG of that result, without colours of its own; `None` if there is none."""
    return read_text(f"{name}.svg")


class ExperimentRecorder(StatusRecorder[LabStatus]):
    """Records progress, results and drawings of the experiments that this process runs."""

    def __init__(self, names: list[str], scale: str) -> None:
        super().__init__(_file, LabStatus(names=tuple(names), scale=scale, pid=os.getpid()))
        self._wrote_s = clock.monotonic_s()
        self._step = ""

    def progress(self, now: ExperimentProgress) -> None:
        """Record the progress: at each new step, and a few times a second within one."""
        if now.step != self._step or clock.monotonic_s() - self._wrote_s > _EVERY_S:
            self._step = now.step
            self._wrote_s = clock.monotonic_s()
            self.update(progress=now)

    def record(self, result: Result, drawing: str | None) -> None:
        """Record a result and its drawing; without one, remove the drawing of an older result."""
        replace(f"{result.name}.json", result.to_json())
        if drawing is None:
            (exclusive_run.directory() / f"{result.name}.svg").unlink(missing_ok=True)
        else:
            replace(f"{result.name}.svg", drawing)
