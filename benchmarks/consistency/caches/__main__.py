"""Check the caches that people use, one after the other, and print the table of the documentation.

`python -m benchmarks.consistency.caches --write`: runs `cachecheck` on Django's backends and others in private
stores, and on other libraries; with `--write`, puts the table into docs/guarantees.md. What cannot be
imported here is named. Not measured: several machines.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cacheapp.processes.servers import GunicornServer, RedisServer
from cacheapp.processes.waiting import until

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "guarantees.md"
_NONE = "\N{EN DASH}"
BEGIN, END = "<!-- table of cachecheck: begin -->", "<!-- table of cachecheck: end -->"
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
}
"""The aliases of `benchmarks.backends.stock_settings`, and the package that each needs."""
LIBRARIES = {
    "dogpile": "dogpile",
    "cashews": "cashews",
    "aiocache": "aiocache",
    "cachelib": "cachelib",
    "stash": "gunicorn",
}
WORKLOADS = (
    *(
        "registers",
        "counters",
        "add",
        "get_or_set",
        "stale_fill",
        "expiry",
        "many",
        "values",
        "locks",
    ),
    *("incr_version", "aregisters", "acounters", "aadd", "aget_or_set", "astale_fill", "aexpiry"),
    *("stop", "cold", "kill", "abandon", "fork", "clear"),
)


def main() -> int:
    """Run the checks; return 0 if each cache that is installed was judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each workload (default 1)")
    parser.add_argument("--lanes", type=int, default=1, help="checked at the same time (default 1)")
    parser.add_argument("--only", action="append", help="a column; may be repeated")
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    asked = parser.parse_args()
    began_s = time.monotonic()
    wanted = [*ALIASES, *LIBRARIES] if not asked.only else asked.only
    found: dict[str, dict[str, Any]] = {}
    with _stores() as env, ThreadPoolExecutor(asked.lanes) as lanes:
        checks = {name: lanes.submit(_checked, name, asked.seconds, env) for name in wanted}
        for name, check in checks.items():
            if report := check.result():
                found[name] = report
                said = f"{report['seconds']:.0f} s, {report['calls_per_s']:,} calls/s"
            else:
                said = "not checked"
            print(f"{name}: {said}", file=sys.stderr, flush=True)
    spent_s = time.monotonic() - began_s
    text = _markdown(
        found,
        f"in {spent_s / 60:.0f} min{_beside(asked.lanes)}",
        [name for name in wanted if name not in found],
    )
    print(text)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))
    if asked.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    return 0


@contextmanager
def _stores() -> Iterator[dict[str, str]]:
    """Yield the environment of the checks: a directory, a Redis and a Gunicorn of their own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachecheck-")))
        port = _free_port()  # some libraries cannot use a Unix socket
        stack.enter_context(RedisServer(["--port", str(port), "--bind", "127.0.0.1"])).start()
        (directory / "gunicorn.conf.py").write_text(
            'dirty_apps = ["benchmarks.consistency.caches.stash_app:Anything"]\ndirty_workers = 1\nworkers = 1\n'
        )
        env = {
            "CHECK_DIR": str(directory),
            "CHECK_REDIS": f"redis://127.0.0.1:{port}/0",
            "PYTHONPATH": str(ROOT),
            "STASH_SOCKET_FILE": str(directory / "stash"),
            "DATA_DIR": str(directory / "data"),
        }
        server = GunicornServer(
            "benchmarks.consistency.caches.stash_app:application", directory, env
        )
        stack.enter_context(server).start()
        until((directory / "stash").exists, "the arbiter of the stash", 60)
        yield {**env, "CHECK_STASH": (directory / "stash").read_text()}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _checked(name: str, seconds: float, env: Mapping[str, str]) -> dict[str, Any] | None:
    """Check one cache; return its part of the report, or nothing if it could not be checked."""
    if not all(map(find_spec, filter(None, [{**ALIASES, **LIBRARIES}[name]]))):
        return None
    workloads = [f"--only={one}" for one in WORKLOADS]
    common = ["--private", "--seconds", str(seconds), *workloads, "--json"]
    with tempfile.TemporaryDirectory(prefix="cachecheck-") as directory:
        path = Path(directory) / "report.json"
        if name in ALIASES:
            command = ["manage.py", "cachecheck", name, *common, str(path)]
            more = {"DJANGO_SETTINGS_MODULE": "benchmarks.backends.stock_settings"}
        else:
            subject = f"benchmarks.consistency.caches.libraries:{name}"
            command, more = ["-m", "cacheapp.cachecheck", subject, *common, str(path)], {}
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, **env, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        if not path.exists():
            print(done.stderr.strip()[-300:], file=sys.stderr)
            return None
        found = json.loads(path.read_text())
    return {**found["aliases"][0], "python": found["python"], "date": found["date"][:10]}


def _beside(lanes: int) -> str:
    return f" ({lanes} at a time, which makes each of them slower)" if lanes > 1 else ""


def _markdown(found: Mapping[str, Mapping[str, Any]], took: str, missing: Sequence[str]) -> str:
    """Return the sentence about the run, the table, and the versions."""
    if not found:
        return "Nothing was checked."
    one = next(iter(found.values()))
    lines = [
        (
            f"Run on {one['date']} with Python {one['python']} on {os.cpu_count()} shared cores, "
            f"{took}, by `python -m benchmarks.consistency.caches --write`:"
        ),
        "",
        "| | " + " | ".join(f"`{name}`" for name in found) + " |",
        "|---|" + "---|" * len(found),
        "| version | " + " | ".join(_version(each) for each in found.values()) + " |",
        "| calls per second | "
        + " | ".join(f"{each['calls_per_s']:,}" for each in found.values())
        + " |",
    ]
    names = dict.fromkeys(each["property"] for own in found.values() for each in own["findings"])
    for name in names:
        cells = [_cell(own["findings"], name) for own in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if missing:
        lines += [
            "",
            f"Not installed where this ran: {', '.join(f'`{each}`' for each in missing)}.",
        ]
    return "\n".join(lines)


def _version(report: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{name} {number}" for name, number in report["versions"].items()) or "this one"
    )


def _cell(findings: Sequence[Mapping[str, Any]], name: str) -> str:
    for one in findings:
        if one["property"] == name:
            if one["verdict"] == "BROKEN":
                figure = re.sub(r"^(\d+ of \d+ keys), ", "", one["figure"])
                return f"**broken**: {figure}" if figure else "**broken**"
            return {"HOLDS": "holds", "NOT APPLICABLE": _NONE}.get(one["verdict"], "unknown")
    return _NONE


if __name__ == "__main__":
    sys.exit(main())
