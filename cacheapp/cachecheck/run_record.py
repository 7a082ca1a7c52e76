"""The records of the last consistency check, for pages: its progress, and what it found."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cacheapp.cachecheck.report import as_json, drawings
from cacheapp.cachecheck.verdicts import AliasReport
from cacheapp.processes import background
from cacheapp.processes.exclusive_run import Holder
from cacheapp.processes.run_record import RunStatus, StatusFile, StatusRecorder, read_json, replace
from cacheapp.typed_values import read_dataclass

NAME = "cachecheck"
QUICK = ("registers", "counters", "add")
"""Workloads that show within seconds whether a cache is shared at all."""
_REPORT = "check-report.json"


@dataclass(frozen=True, kw_only=True)
class CheckStatus(RunStatus):
    """The last check on this machine that was started from a page."""

    aliases: tuple[str, ...]
    alias: str = ""
    doing: str = ""
    """The workload that runs."""
    done: int = 0
    total: int = 1


def _parse(raw: Mapping[str, Any]) -> CheckStatus:
    return read_dataclass(CheckStatus, {**raw, "aliases": tuple(raw["aliases"])})


_file = StatusFile("check-status.json", _parse)
status = _file.read


def start(aliases: Sequence[str], seconds: float, *, private: bool, quick: bool) -> Holder:
    """Start a check in a process of its own and return at once; raise `Busy`.

    A check measures, so it never runs beside an experiment of the lab.
    """
    only = [f"--only={name}" for name in QUICK] if quick else []
    places = ["--private"] if private else []
    arguments = [*aliases, "--seconds", f"{seconds:g}", *places, *only]
    return background.start_command(NAME, arguments, NAME, lambda: begin(aliases))


def begin(aliases: Sequence[str]) -> CheckStatus:
    """Record that a check is about to start; for the holder of the exclusive run."""
    return _file.write(CheckStatus(aliases=tuple(aliases), pid=0))


def report() -> dict[str, Any] | None:
    """Return what the last check found so far, in the form of `--json`, with its `drawings`."""
    return read_json(_REPORT)


class CheckRecorder(StatusRecorder[CheckStatus]):
    """Records the progress and the report of the check that this process runs."""

    def __init__(self, aliases: Sequence[str], about: Mapping[str, Any]) -> None:
        super().__init__(_file, CheckStatus(aliases=tuple(aliases), pid=os.getpid()))
        self._about = about
        self.record([])

    def record(self, reports: Sequence[AliasReport]) -> None:
        """Record the findings so far."""
        found = {**json.loads(as_json(reports, self._about)), "drawings": drawings(reports)}
        replace(_REPORT, json.dumps(found))
