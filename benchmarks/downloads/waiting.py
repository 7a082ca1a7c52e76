"""The time of 200 files from an origin that responds after half a second, with 200 threads.

    python -m benchmarks.downloads.waiting [--runs N] [--files N] [--json FILE]

Three variants take turns in each run: the engine alone; the same over HTTP, from the POST until
another worker of a Gunicorn with 4 reports `succeeded`; and one file after the other, measured on a
few files and extrapolated. The origin is a separate process on the same machine and uses part of
its processors. Not measured: TLS, real networks, large files, more than one job.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import (
    ROOT,
    Turn,
    command_line,
    summaries,
    table,
    take_turns,
    write_report,
)
from cacheapp import clock
from cacheapp.downloads.engine.run import JobRun
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.plan import Item, Plan
from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from cacheapp.processes.workers import Workers

FILES = 200
THREADS = 200
DELAY_MS = 500
BYTES = 10_000
GOAL_S = 1.5
_SEQUENTIAL_FILES = 4
_SEQUENTIAL = f"one thread (computed from {_SEQUENTIAL_FILES} files)"


@contextlib.contextmanager
def _origin() -> Iterator[str]:
    """Yield the address of an origin in its own process; it ends with its standard input."""
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
def _gunicorn(origin: str, data: Path, count: int) -> Iterator[Workers]:
    env = {
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DATA_DIR": str(data),
        "SECRET_KEY": "only-for-benchmarks-" + "x" * 50,
        "DEMO": "1",
        "SECURE_SSL_REDIRECT": "0",
        "LOG_LEVEL": "ERROR",
        "WEB_CONCURRENCY": str(count),
        "DOWNLOAD_ORIGINS": origin,
    }
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=ROOT, env={**os.environ, **env}, check=True)
    server = GunicornServer("project.wsgi:application", ROOT, env)
    with server, Workers(server.url, count=count) as workers:
        server.start()
        yield workers


def _urls(origin: str, count: int, delay_ms: int) -> list[str]:
    return [f"{origin}/file/{n}.bin?n={n}&bytes={BYTES}&delay_ms={delay_ms}" for n in range(count)]


def engine(urls: list[str], origin: str, directory: Path, threads: int) -> float:
    """Return the seconds from the start of the first thread to the end of the last."""
    files = len(urls)
    items = tuple(Item(n, n, url, f"{n}.bin") for n, url in enumerate(urls))
    plan = Plan(uuid.uuid4(), directory / uuid.uuid4().hex, threads, frozenset([origin]), items)
    run = JobRun(plan, TransferLimits(max_bytes=2**20), lambda: None, ThreadPool(threads))
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


def over_http(urls: list[str], workers: Workers) -> float:
    """Return the seconds from the POST to one worker until another reports `succeeded`."""
    owner, other = workers.find()[:2]
    began_s = clock.monotonic_s()
    wanted = {"urls": urls, "threads": THREADS}
    job = workers.ask(owner, "POST", "/api/downloads", wanted).body

    def ended() -> bool:
        found = workers.ask(other, "GET", f"/api/downloads/{job['id']}").body
        if found["state"] == "failed":
            raise RuntimeError(f"the job failed: {found}")
        return bool(found["state"] == "succeeded" and found["files_done"] == len(urls))

    until(ended, "the job to succeed", 60)
    return clock.monotonic_s() - began_s


def measure(runs: int, files: int, delay_ms: int, workers: int) -> dict[str, list[float]]:
    """Return the seconds of each run by variant; the variants take turns."""
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(_origin())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = stack.enter_context(_gunicorn(origin, directory / "data", workers))
        urls = _urls(origin, files, delay_ms)
        few = urls[:_SEQUENTIAL_FILES]
        share = len(urls) / len(few)
        variants: dict[str, Turn] = {
            f"engine, {THREADS} threads": lambda: [engine(urls, origin, directory, THREADS)],
            f"over HTTP, {THREADS} threads": lambda: [over_http(urls, served)],
            _SEQUENTIAL: lambda: [share * engine(few, origin, directory, 1)],
        }
        return take_turns(variants, runs)


def main() -> int:
    """Print the table; return 1 if the engine misses its goal."""
    parser = command_line(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--delay-ms", type=int, default=DELAY_MS, help="of the origin's answers")
    parser.add_argument("--workers", type=int, default=4, help="of Gunicorn; at least 2")
    asked = parser.parse_args()
    samples = {
        f"{asked.files} files": measure(asked.runs, asked.files, asked.delay_ms, asked.workers)
    }
    results = summaries(samples)
    print(*table("seconds", results, _SEQUENTIAL), sep="\n")
    figures = {
        "files": asked.files,
        "bytes_per_file": BYTES,
        "delay_ms": asked.delay_ms,
        "seconds": results,
        "samples": samples,
    }
    write_report(asked.json, "downloads.waiting", ["Django", "gunicorn", "urllib3"], figures)
    (found,) = results.values()
    missed = [name for name in found if found[name]["median"] > GOAL_S and name != _SEQUENTIAL]
    print(f"\nmissed the goal of {GOAL_S} s: {missed}" if missed else f"\nall within {GOAL_S} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
