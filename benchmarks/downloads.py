"""How long 200 files take from an origin that answers after half a second, with 200 threads.

    python -m benchmarks.downloads [--runs N] [--json FILE]

Three variants, in turn in each run: the engine alone; the same over HTTP, from POST until another
worker of a Gunicorn with 4 reports `succeeded`; and one file after the other, measured on a few
files and computed for all. The origin is a process of its own on the same machine, and takes its
part of the processors. Not measured: TLS, real networks, large files, more than one job.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from cacheapp import clock
from cacheapp.downloads.engine import Run
from cacheapp.downloads.plan import Item, Plan
from cacheapp.downloads.pool import Pool
from cacheapp.downloads.wanted import Limits
from cacheapp.lab.servers import GunicornServer
from cacheapp.lab.waiting import until
from cacheapp.lab.workers import Workers

ROOT = Path(__file__).resolve().parent.parent
FILES = 200
THREADS = 200
DELAY_MS = 500
BYTES = 10_000
SEQUENTIAL_FILES = 4
GOAL_S = 1.5


@contextlib.contextmanager
def _origin() -> Iterator[str]:
    """Yield the address of an origin in a process of its own; it ends with its input."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.origin"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        yield process.stdout.readline().strip()
        assert process.stdin is not None  # noqa: S101 (the same)
        process.stdin.close()


@contextlib.contextmanager
def _gunicorn(origin: str, data: Path) -> Iterator[Workers]:
    env = {
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DATA_DIR": str(data),
        "SECRET_KEY": "only-for-benchmarks-" + "x" * 50,
        "DEMO": "1",
        "SECURE_SSL_REDIRECT": "0",
        "LOG_LEVEL": "ERROR",
        "WEB_CONCURRENCY": "4",
        "DOWNLOAD_ORIGINS": origin,
    }
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=ROOT, env={**os.environ, **env}, check=True)
    server = GunicornServer("project.wsgi:application", ROOT, env)
    with server, Workers(server.url, count=4) as workers:
        server.start()
        yield workers


def _urls(origin: str, count: int) -> list[str]:
    return [f"{origin}/file/{n}.bin?n={n}&bytes={BYTES}&delay_ms={DELAY_MS}" for n in range(count)]


def engine(origin: str, directory: Path, files: int, threads: int) -> float:
    """Return the seconds from the first thread's start to the last one's end."""
    items = tuple(Item(n, n, url, f"{n}.bin") for n, url in enumerate(_urls(origin, files)))
    plan = Plan(uuid.uuid4(), directory / uuid.uuid4().hex, threads, frozenset([origin]), items)
    run = Run(plan, Limits(max_bytes=2**20), lambda: None, Pool(threads))
    began_s = clock.monotonic_s()
    run.start()
    if not run.join(within_s=300):
        raise RuntimeError(f"{run} has not ended")
    took_s = clock.monotonic_s() - began_s
    progress = run.changes()[1]
    if (progress.files_done, progress.bytes_done) != (files, files * BYTES):
        raise RuntimeError(f"{run}: expected {files} whole files")
    run.clean()
    return took_s


def over_http(origin: str, workers: Workers) -> float:
    """Return the seconds from the POST to one worker until another says `succeeded`."""
    owner, other = workers.find()[:2]
    began_s = clock.monotonic_s()
    wanted = {"urls": _urls(origin, FILES), "threads": THREADS}
    job = workers.ask(owner, "POST", "/api/downloads", wanted).body

    def ended() -> bool:
        found = workers.ask(other, "GET", f"/api/downloads/{job['id']}").body
        if found["state"] == "failed":
            raise RuntimeError(f"the job failed: {found}")
        return bool(found["state"] == "succeeded" and found["files_done"] == FILES)

    until(ended, "the job to succeed", 60)
    return clock.monotonic_s() - began_s


def measure(runs: int) -> dict[str, list[float]]:
    """Return the seconds of each run by variant; the variants take turns."""
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(_origin())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = stack.enter_context(_gunicorn(origin, directory / "data"))
        sequential = f"one thread, {FILES} files (computed from {SEQUENTIAL_FILES})"
        share = FILES / SEQUENTIAL_FILES
        variants: dict[str, Callable[[], float]] = {
            f"engine, {THREADS} threads": lambda: engine(origin, directory, FILES, THREADS),
            f"over HTTP, {THREADS} threads": lambda: over_http(origin, workers),
            sequential: lambda: share * engine(origin, directory, SEQUENTIAL_FILES, 1),
        }
        samples: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(runs):
            for name, variant in variants.items():
                samples[name].append(variant())
        return samples


def summary(samples: list[float]) -> dict[str, float]:
    """Return median, p90 and maximum."""
    ordered = sorted(samples)
    p90 = ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))]
    return {"median": statistics.median(ordered), "p90": p90, "max": ordered[-1]}


def conditions() -> dict[str, Any]:
    """Return what the numbers depend on."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    kernel = platform.release().partition("-")[0]
    packages = ["urllib3", "Django", "gunicorn"]
    return {
        "commit": commit.stdout.strip() or "unknown",
        "command": "python -m benchmarks.downloads",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "machine": f"{platform.system()} {kernel} {platform.machine()}",
        "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "files": FILES,
        "bytes_per_file": BYTES,
        "delay_ms": DELAY_MS,
    }


def main() -> int:
    """Print the table; return 1 when the engine misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep samples and conditions")
    options = parser.parse_args()
    found: dict[str, Any] = conditions()
    samples = measure(options.runs)
    found["seconds"] = {name: {**summary(raw), "raw": raw} for name, raw in samples.items()}
    print(", ".join(f"{key} {value}" for key, value in found.items() if key != "seconds"))
    print(f"\n{'seconds':<45}{'median':>9}{'p90':>9}{'max':>9}")
    for name, row in found["seconds"].items():
        print(f"{name:<45}{row['median']:>9.2f}{row['p90']:>9.2f}{row['max']:>9.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    missed = [name for name, row in found["seconds"].items() if row["median"] > GOAL_S]
    missed = [name for name in missed if not name.startswith("one thread")]
    print(f"\nmissed the goal of {GOAL_S} s: {missed}" if missed else f"\nall within {GOAL_S} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
