"""Check the caches that people use, and print the table of the documentation.

`python -m benchmarks.consistency.caches --write`: runs `cachecheck` on Django's backends and others in private
stores, and on other libraries; with `--write`, puts the table into docs/guarantees.md. First, one cache after
the other makes calls of all kinds on a machine that does nothing else: this gives the calls per second. Then
the other workloads run, of some caches at the same time, because most of them wait. What is not installed
here is named, and a column of its own. Not measured: several machines.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.consistency.caches.stores import ROOT, stores
from benchmarks.consistency.caches.table import markdown, missing, write
from cacheapp.processes.servers import find_redis_server

PAGE = ROOT / "docs" / "guarantees.md"
COMMAND = "python -m benchmarks.consistency.caches --write"
ALIASES = {
    "locmem": "",
    "file": "",
    "database": "",
    "core-redis": "redis",
    "memcached": "pymemcache",
    "django-redis": "django_redis",
    "django-valkey": "django_valkey",
    "diskcache": "diskcache",
    "community": "diskcache_community",
    "lmdb": "lmdb",
    "disk": "diskcache",
    "redis": "django_redis",
    "near": "django_redis",
}
"""The aliases of `benchmarks.backends.stock_settings`, and the package that each needs."""
LIBRARIES = {
    "dogpile": "dogpile",
    "cashews": "cashews",
    "aiocache": "aiocache",
    "cachelib": "cachelib",
    "stash": "gunicorn",
}
PROGRAMS = {"memcached": "memcached"}
"""The program that a cache needs beside its package."""
OURS = ("lmdb", "disk", "redis", "near")
TIMED = ("registers",)
"""What runs alone: its calls are counted."""
BESIDE = (
    *("counters", "add", "get_or_set", "stale_fill", "expiry", "many", "values", "locks"),
    *("incr_version", "aregisters", "acounters", "aadd", "aget_or_set", "astale_fill", "aexpiry"),
    *("stop", "cold", "kill", "abandon", "fork", "clear"),
)


def main() -> int:
    """Run the checks; return 0 if each cache that is installed was judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each workload (default 1)")
    parser.add_argument("--lanes", type=int, default=3, help="checked at the same time (default 3)")
    parser.add_argument("--only", action="append", help="a column; may be repeated")
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    asked = parser.parse_args()
    began_s = time.monotonic()
    wanted = asked.only or [*ALIASES, *LIBRARIES]
    with stores() as env:
        found = _all(wanted, asked.seconds, asked.lanes, env)
    text = markdown(found, _how(asked.seconds, time.monotonic() - began_s))
    print(text)
    for line in missing(found):
        print(line, file=sys.stderr)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))
    if asked.write:
        write(PAGE, text)
    return int(any(each and not each["findings"] for each in found.values()))


def _how(seconds: float, spent_s: float) -> str:
    """Return a sentence about the run."""
    return (
        f"Run on {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()} on "
        f"{os.cpu_count()} cores, with {' and '.join(_servers())}, in {spent_s / 60:.0f} min with "
        f"{seconds:g} s for each workload, by `{COMMAND}`:"
    )


def _servers() -> list[str]:
    """Return the names and versions of the servers."""
    found = []
    for program in filter(None, (find_redis_server(), shutil.which("memcached"))):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        names = re.match(r"(\w+)(?: server v=| )([\w.]+)", said.stdout.strip())
        found.append(" ".join(names.groups()) if names else said.stdout.strip())
    return found


def _all(
    names: Sequence[str], seconds: float, lanes: int, env: Mapping[str, str]
) -> dict[str, dict[str, Any] | None]:
    """Return the reports: what is timed, one after the other; then the rest, side by side."""
    found: dict[str, dict[str, Any] | None] = {}
    for name in names:
        found[name] = _checked(name, seconds, TIMED, env) if _installed(name) else None
        _say(name, found[name])
    with ThreadPoolExecutor(lanes) as pool:
        rest = [
            (name, report, pool.submit(_checked, name, seconds, BESIDE, env))
            for name, report in found.items()
            if report
        ]
        for name, report, check in rest:
            more = check.result()
            _say(name, more)
            findings = [*report["findings"], *more["findings"]]
            report["findings"] = findings if more["findings"] else []
    return found


def _say(name: str, report: Mapping[str, Any] | None) -> None:
    if report is None:
        said = "not installed"
    else:
        rate = f", {report['calls_per_s']:,} calls/s" if report["calls_per_s"] else ""
        said = f"{len(report['findings'])} properties in {report['seconds']:.0f} s{rate}"
    print(f"{name}: {said}", file=sys.stderr, flush=True)


def _installed(name: str) -> bool:
    packages = filter(None, [{**ALIASES, **LIBRARIES}[name]])
    return all(map(find_spec, packages)) and bool(shutil.which(PROGRAMS.get(name, "true")))


def _checked(
    name: str, seconds: float, workloads: Sequence[str], env: Mapping[str, str]
) -> dict[str, Any]:
    """Run some workloads on one cache; return its part of the report, without findings if it failed."""
    with tempfile.TemporaryDirectory(prefix="cachecheck-") as directory:
        path = Path(directory) / "report.json"
        only = (f"--only={one}" for one in workloads)
        command, more = _command(name)
        done = subprocess.run(
            [sys.executable, *command, "--private", f"--seconds={seconds}", *only, "--json", path],
            cwd=ROOT,
            env={**os.environ, **env, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        if not path.exists():
            print(f"{name} could not be checked: {done.stderr.strip()[-2000:]}", file=sys.stderr)
            return {"findings": [], "versions": {}, "calls_per_s": 0, "seconds": 0.0}
        report: dict[str, Any] = json.loads(path.read_text())["aliases"][0]
    if name in OURS:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        report["versions"] = {"cacheapp": project["version"]}
    return report


def _command(name: str) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the arguments of Python that check a cache, and what they need in the environment."""
    if name in ALIASES:
        settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.backends.stock_settings"}
        return ["manage.py", "cachecheck", name], settings
    return ["-m", "cacheapp.cachecheck", f"benchmarks.consistency.caches.libraries:{name}"], {}


if __name__ == "__main__":
    sys.exit(main())
