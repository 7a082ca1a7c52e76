"""What is kept of the last check in `STATE_DIR/lab`, for pages: how far it is, what was found.

Any process of this host may read it at any time. Only who has the turn writes: a check measures
too, so it takes its turn with the experiments.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cacheapp import clock
from cacheapp.cachecheck.report import as_json, drawings
from cacheapp.cachecheck.verdicts import Report
from cacheapp.lab.kept import State, replace
from cacheapp.processes import background, turn
from cacheapp.processes.turn import Holder

NAME = "cachecheck"
QUICK = ("registers", "counters", "add")
"""Workloads that show within seconds whether a cache is shared at all."""
_STATUS, _REPORT = "check-status.json", "check-report.json"


@dataclass(frozen=True)
class Status:
    """The last check on this host that was started from a page."""

    aliases: tuple[str, ...]
    pid: int
    """0 until the process that was started has taken over."""
    began_s: float
    """Wall time."""
    state: State
    alias: str = ""
    doing: str = ""
    """The workload that runs."""
    done: int = 0
    total: int = 1
    error: str = ""


def start(aliases: Sequence[str], seconds: float, *, private: bool, quick: bool) -> Holder:
    """Start a check in a process of its own and return at once; raise `Busy`."""
    only = [f"--only={name}" for name in QUICK] if quick else []
    places = ["--private"] if private else []
    arguments = [*aliases, "--seconds", f"{seconds:g}", *places, *only]
    return background.start_command(NAME, arguments, NAME, lambda: begin(aliases))


def status() -> Status | None:
    """Return the last check, or `None`; one whose process is gone without a word is `LOST`."""
    while (found := _status()) is not None and found.state is State.RUNNING:
        holder = turn.holder()
        if holder is not None and found.pid in (0, holder.pid):
            break
        # It may have ended between the two looks; then what it wrote last says how.
        if _status() == found:
            return dataclasses.replace(found, state=State.LOST)
    return found


def _status() -> Status | None:
    found = _read(_STATUS) or {}
    try:
        return Status(
            **{**found, "aliases": tuple(found["aliases"]), "state": State(found["state"])}
        )
    except (TypeError, KeyError, ValueError):  # of another version
        return None


def begin(aliases: Sequence[str], pid: int = 0) -> Status:
    """Note that a check begins; by the one who has the turn."""
    found = Status(tuple(aliases), pid, clock.wall_s(), State.RUNNING)
    _write(found)
    return found


def _write(status: Status) -> None:
    replace(_STATUS, json.dumps(dataclasses.asdict(status)))


def report() -> dict[str, Any] | None:
    """Return what the last check found, so far, as `--json` has it, with its `drawings`."""
    return _read(_REPORT)


def _read(name: str) -> dict[str, Any] | None:
    try:
        found = json.loads((turn.directory() / name).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class Keeper:
    """Writes it down. Used by the process that has the turn."""

    def __init__(self, aliases: Sequence[str], about: Mapping[str, Any]) -> None:
        self._about = about
        self._status = begin(aliases, os.getpid())
        self.keep([])

    def began(self, alias: str, doing: str, done: int, total: int) -> None:
        """Note which workload runs, and how many of how many are over."""
        self._note(alias=alias, doing=doing, done=done, total=total)

    def keep(self, reports: Sequence[Report]) -> None:
        """Keep what was found so far."""
        found = {**json.loads(as_json(reports, self._about)), "drawings": drawings(reports)}
        replace(_REPORT, json.dumps(found))

    def end(self, state: State, error: str = "") -> None:
        """Note how it ended; only the first word counts."""
        if self._status.state is State.RUNNING:
            self._note(state=state, error=error, doing="")

    def _note(self, **changes: Any) -> None:
        self._status = dataclasses.replace(self._status, **changes)
        _write(self._status)
