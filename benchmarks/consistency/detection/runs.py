"""Runs of `cachecheck` on a broken cache, each until something is found, or on a right one.

The runs of a cache share its client processes, because to start these takes longer than most runs.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from django.conf import settings

from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.examine import NAMES, OUTAGES, PROCESSES, CheckPlan, Examination
from cacheapp.cachecheck.private import private_stores
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from tests.integration.cachecheck.held_out import HELD_OUT

_WORKLOADS = tuple(name for name in NAMES if name not in OUTAGES)
_FAULTS_EVERY = 10
"""Workloads that stop, kill or start processes take long: a right cache has them in one of so many runs."""
RIGHT = ("lmdb", "disk", "redis", "near")
"""Aliases of `benchmarks.backends.stock_settings` whose caches should keep every property."""
Result = dict[str, Any]
Write = Callable[[Result], None]


class _Runs(Examination):
    """Several runs of a plan; `ended` is called with the number of each, its findings and its duration.

    `until_found`: a run ends as soon as a property is found broken.
    """

    numbers: Sequence[int] = ()
    until_found = False
    ended: Callable[[int, list[PropertyFinding], float], None]
    _run: CheckRun

    def _new_run(self, setup: Setup) -> CheckRun:
        self._run = super()._new_run(setup)
        return self._run

    def turns(self) -> Iterator[tuple[str, Any, bool]]:
        """Yield the workloads of all runs."""
        for number in self.numbers:
            began_s, before = time.monotonic(), len(self.findings)
            self._run.token = f"cachecheck-{token_hex(6)}"  # keys and events of its own
            for one in self.chosen():
                if self.until_found and _with(self.findings[before:], PropertyVerdict.BROKEN):
                    break
                if self.until_found or number % _FAULTS_EVERY == 0 or one[0] not in PROCESSES:
                    yield one
            self.ended(number, self.findings[before:], time.monotonic() - began_s)


def broken(name: str, numbers: Sequence[int], seconds: float, write: Write) -> None:
    """Check a broken cache some times, each until a property is found broken."""
    kind = HELD_OUT[name]

    def ended(number: int, findings: list[PropertyFinding], spent_s: float) -> None:
        found = next(iter(_with(findings, PropertyVerdict.BROKEN)), None)
        result = _about("broken", name, number, seconds, spent_s)
        write({**result, "found": found and found.property})

    with tempfile.TemporaryDirectory(prefix="cachecheck-") as directory:
        entry = {"BACKEND": f"{kind.__module__}.{name}", "LOCATION": str(Path(directory, "store"))}
        overrides = {
            "CACHES": {**settings.CACHES, name: entry},
            "CACHEAPP": {**settings.CACHEAPP, "STATE_DIR": Path(directory, "state")},
        }
        plan = CheckPlan(seconds=seconds, private=True, only=_WORKLOADS)
        runs = _Runs(name, "", plan, overrides)
        runs.numbers, runs.until_found, runs.ended = numbers, True, ended
        runs.run()


def right(name: str, numbers: Sequence[int], seconds: float, write: Write) -> None:
    """Check a right cache some times; a result has what is accused, with the calls."""

    def ended(number: int, findings: list[PropertyFinding], spent_s: float) -> None:
        unknown = _with(findings, PropertyVerdict.UNKNOWN)
        write(
            {
                **_about("right", name, number, seconds, spent_s),
                "verdicts": Counter(one.verdict.value for one in findings),
                "accused": [one.as_json() for one in _with(findings, PropertyVerdict.BROKEN)],
                "unknown": [f"{one.property}: {one.why}" for one in unknown],
            }
        )

    with private_stores([name]) as stores:
        plan = CheckPlan(processes=3, seconds=seconds, private=True, only=_WORKLOADS)
        runs = _Runs(name, "", plan, stores.overrides)
        runs.numbers, runs.ended = numbers, ended
        runs.run()


def _with(findings: Sequence[PropertyFinding], verdict: PropertyVerdict) -> list[PropertyFinding]:
    return [one for one in findings if one.verdict is verdict]


def _about(kind: str, name: str, number: int, seconds: float, spent_s: float) -> Result:
    return {
        "kind": kind,
        "cache": name,
        "run": number,
        "seconds": seconds,
        "spent_s": round(spent_s, 1),
        "load": round(os.getloadavg()[0], 1),
    }
