"""The lab's records: the status of the last run, and the last result of each experiment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cacheapp import clock
from cacheapp.lab.bench import ExperimentProgress, Scale
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import Result
from cacheapp.lab.run import find
from cacheapp.processes import background
from cacheapp.processes.exclusive_run import Holder
from cacheapp.processes.run_record import (
    RunStatus,
    StatusFile,
    StatusRecorder,
    read_text,
    replace,
)
from cacheapp.typed_values import read_dataclass

_EVERY_S = 0.3


@dataclass(frozen=True, kw_only=True)
class LabStatus(RunStatus):
    """The last run of experiments on this machine, started from a page or a terminal."""

    names: tuple[str, ...]
    """The experiments of this run, in order."""
    scale: str
    progress: ExperimentProgress | None = None


def _parse(raw: Mapping[str, Any]) -> LabStatus:
    progress = read_dataclass(ExperimentProgress, raw["progress"]) if raw["progress"] else None
    return read_dataclass(LabStatus, {**raw, "names": tuple(raw["names"]), "progress": progress})


_file = StatusFile("status.json", _parse)
status = _file.read


def start(*names: str, full: bool = False) -> Holder:
    """Start experiments, one after the other, in a process of their own, and return at once.

    Without names, all. Raises `Busy`, or `UnknownExperiment`. `status()` returns the progress,
    `result(name)` the results.
    """
    chosen = [find(name).name for name in dict.fromkeys(names or EXPERIMENTS)]
    scale = Scale.FULL if full else Scale.USUAL
    arguments = [*chosen, *(["--full"] if full else [])]
    return background.start_command("lab", arguments, chosen[0], lambda: begin(chosen, scale))


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


class ExperimentRecorder(StatusRecorder[LabStatus]):
    """Records progress and results of the experiments that this process runs."""

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

    def record(self, result: Result) -> None:
        """Record a result in place of the last one."""
        replace(f"{result.name}.json", result.to_json())
