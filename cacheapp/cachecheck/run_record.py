"""The records of the last consistency check, for pages: its progress, and what it found."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cacheapp.cachecheck.report import as_json, drawings
from cacheapp.cachecheck.verdicts import AliasReport
from cacheapp.processes import background
from cacheapp.processes.exclusive_run import Holder
from cacheapp.processes.run_record import RunState, RunStatus, StatusFile, read_json, replace

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
    return CheckStatus(**{**raw, "aliases": tuple(raw["aliases"])})


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


def begin(aliases: Sequence[str], pid: int = 0) -> CheckStatus:
    """Record that a check begins; for the holder of the exclusive run."""
    return _file.write(CheckStatus(aliases=tuple(aliases), pid=pid))


def report() -> dict[str, Any] | None:
    """Return what the last check found so far, in the form of `--json`, with its `drawings`."""
    return read_json(_REPORT)


class RunRecorder:
    """Records a check. Used by the process that holds the exclusive run."""

    def __init__(self, aliases: Sequence[str], about: Mapping[str, Any]) -> None:
        self._about = about
        self._status = begin(aliases, os.getpid())
        self.record([])

    def began(self, alias: str, doing: str, done: int, total: int) -> None:
        """Record which workload runs, and how many of how many are over."""
        self._change(alias=alias, doing=doing, done=done, total=total)

    def record(self, reports: Sequence[AliasReport]) -> None:
        """Record what was found so far."""
        found = {**json.loads(as_json(reports, self._about)), "drawings": drawings(reports)}
        replace(_REPORT, json.dumps(found))

    def end(self, state: RunState, error: str = "") -> None:
        """Record how the check ended; only the first call counts."""
        if self._status.state is RunState.RUNNING:
            self._change(state=state, error=error, doing="")

    def _change(self, **changes: Any) -> None:
        self._status = _file.write(dataclasses.replace(self._status, **changes))
