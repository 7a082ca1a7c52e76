"""The cost of downloads for the worker that runs them, and of a kill for the download.

    python -m benchmarks.downloads.hosting [--runs N] [--smaller N] [--json FILE]

Four measurements on a Gunicorn with 4 workers, each with a goal: the time of other requests to the
worker while a job of 32 threads fetches 200 MiB/s (without a goal: also over HTTPS); the time of
the view that starts a job of 200 files; the bytes fetched twice after SIGKILL; and the time of the
same files with the engine alone. Origin and client are on the same machine and use part of its
processors. Files go to BENCH_DIR: memory unless it names a disk, which others use too. Not
measured: other worker classes, PostgreSQL, real networks, and disks.
"""

import contextlib
import datetime as dt
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil

from benchmarks.downloads._bulk_origins import bulk_origins
from benchmarks.downloads._hosting_site import Quick, Site
from benchmarks.measuring import command_line, progress, summaries, table, write_report
from cacheapp import clock
from cacheapp.downloads.engine.run import JobRun
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import READ_BYTES, TransferLimits
from cacheapp.downloads.plan import Item, Plan
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin

MIB = 2**20
THREADS = 32
VIEWS = 5
RATE = 200 * MIB
JOB, SECURE_JOB = "beside a job", "beside a job over HTTPS"
GOALS = {"p99 beside a job, times idle": 2.0, "view, ms": 20.0, "hosted, times the engine": 1.05}


def beside(site: Site, origin: str, smaller: int) -> tuple[list[float], list[float], float]:
    """Return request times of an idle and of a downloading worker, and the job's MiB/s.

    No other requests are sent. The job's state is checked before and after, to ensure that it ran
    from the first request to the last.
    """
    pid = site.workers.find()[0]
    size, calls = 48 * MIB // smaller, max(20, 4000 // smaller)
    quick = Quick(site.url, pid)
    idle = [quick.ask("GET", "/api/worker")[0] for _ in range(calls)]
    rate = RATE // THREADS
    urls = [f"{origin}/files/{size}/0/1/{n}.bin?rate={rate}" for n in range(THREADS)]
    job = site.order(pid, urls, THREADS)
    until(lambda: site.look(job).get("bytes_done"), "the job's first bytes", 10)
    busy = [quick.ask("GET", "/api/worker")[0] for _ in range(calls)]
    if site.look(job)["state"] != "running" and smaller == 1:
        raise RuntimeError("the job ended before the requests did")
    quick.close()
    return idle, busy, THREADS * size / MIB / _ended_s(site, job)


def view_ms(site: Site, origin: str) -> list[float]:
    """Return the times of the view that starts a job of 200 files."""
    pid = site.workers.find()[0]
    urls = [f"{origin}/files/1000/0/1/{n}.bin" for n in range(200)]
    found = []
    for _ in range(VIEWS):
        quick = Quick(site.url, pid)
        took_ms, job = quick.ask("POST", "/api/downloads", {"urls": urls, "threads": THREADS})
        quick.close()
        site.end_of(job)
        site.forget(job)
        found.append(took_ms)
    return found


def fetched_twice(site: Site, origin: Origin) -> tuple[int, float]:
    """Return the bytes sent twice because a worker was killed, and the seconds until the end."""
    size = 4 * MIB
    for n in range(THREADS):
        origin.things[f"{n}"] = Thing([Version(bytes(size), f'"{n}"')], takes_s=3.0)
    pid = site.workers.find()[0]
    job = site.order(pid, [f"{origin.url}/thing/{n}" for n in range(THREADS)], THREADS)
    things = origin.things.values()
    until(lambda: min(sum(it.sent) for it in things) > size // 2, "half of each file", 60)
    psutil.Process(pid).kill()
    began_s = clock.monotonic_s()
    site.end_of(job)
    took_s = clock.monotonic_s() - began_s
    site.forget(job)
    sent = sum(sum(it.sent) for it in things)
    origin.things.clear()
    return sent - THREADS * size, took_s


def _alone_s(origin: str, directory: Path, size: int, files: int) -> float:
    items = tuple(
        Item(n, n, f"{origin}/files/{size}/0/1/{n}.bin", f"{n}.bin") for n in range(files)
    )
    place = directory / uuid.uuid4().hex
    plan = Plan(
        *(uuid.uuid4(), place, THREADS, frozenset([origin]), items), token=1, resumable=True
    )
    run = JobRun(plan, TransferLimits(max_bytes=2**40), lambda: None, ThreadPool(THREADS))
    began_s = clock.monotonic_s()
    run.start()
    if not run.join(300) or run.changes()[1].files_done != files:
        raise RuntimeError(f"{run} did not fetch all")
    took_s = clock.monotonic_s() - began_s
    run.clean()
    for path in place.iterdir():
        path.unlink()
    return took_s


def _hosted_s(site: Site, origin: str, size: int, files: int) -> float:
    urls = [f"{origin}/files/{size}/0/1/{n}.bin" for n in range(files)]
    return _ended_s(site, site.order(site.workers.find()[0], urls, THREADS))


def _ended_s(site: Site, job: dict[str, Any]) -> float:
    """Wait for a job and delete it; return the seconds from its start to its last file."""
    started_at = site.end_of(job)["started_at"]
    began_s = dt.datetime.fromisoformat(started_at).timestamp()
    directory = site.downloads / job["id"]
    took_s = max(path.stat().st_mtime for path in directory.glob("*.bin")) - began_s
    site.forget(job)
    return float(took_s)


def measure(runs: int, smaller: int) -> dict[str, Any]:
    """Return all samples; the variants take turns."""
    found: dict[str, Any] = {"ms": {}, "seconds": {"engine": [], "hosted": []}}
    requests: dict[str, list[float]] = {"idle": [], JOB: [], SECURE_JOB: []}
    found["mib_s"] = {JOB: [], SECURE_JOB: []}
    views: list[float] = []
    twice: list[int] = []
    again: list[float] = []
    with contextlib.ExitStack() as stack:
        bulk, secure, authority = stack.enter_context(bulk_origins())
        paced = stack.enter_context(Origin())
        site = Site(stack, [bulk, secure, paced.url], authority)
        size = max(MIB, 32 * MIB // smaller)
        for turn in range(runs):
            for origin, name in ((bulk, JOB), (secure, SECURE_JOB)):
                idle, busy, mib_s = beside(site, origin, smaller)
                requests["idle"] += idle
                requests[name] += busy
                found["mib_s"][name].append(mib_s)
            views += view_ms(site, bulk)
            _alone_s(bulk, site.downloads, size, 64)  # not counted: warms up memory
            for who in ("engine", "hosted", "hosted", "engine"):
                alone = who == "engine"
                found["seconds"][who].append(
                    _alone_s(bulk, site.downloads, size, 64)
                    if alone
                    else _hosted_s(site, bulk, size, 64)
                )
            bytes_twice, took_s = fetched_twice(site, paced)
            twice.append(bytes_twice)
            again.append(took_s)
            progress(f"run {turn + 1} of {runs}")
    found["ms"] = {"GET /api/worker": requests, "POST of 200 files": {"hosting": views}}
    found["bytes_twice"], found["seconds_after_kill"] = twice, again
    return found


def judged(found: dict[str, Any], results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each goal with its measurement."""
    times = results["GET /api/worker"]
    seconds = {name: sorted(it)[len(it) // 2] for name, it in found["seconds"].items()}
    ours = {
        "p99 beside a job, times idle": times[JOB]["p99"] / times["idle"]["p99"],
        "view, ms": results["POST of 200 files"]["hosting"]["median"],
        "hosted, times the engine": seconds["hosted"] / seconds["engine"],
        "bytes fetched twice": float(max(found["bytes_twice"])),
    }
    limits = {**GOALS, "bytes fetched twice": float(THREADS * READ_BYTES)}
    return [
        {"measure": name, "ours": ours[name], "goal": limit, "met": ours[name] <= limit}
        for name, limit in limits.items()
    ]


def main() -> int:
    """Print the results with their goals; a missed goal is printed, not an error."""
    parser = command_line(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--smaller", type=int, default=1, metavar="N", help="divide sizes by this")
    asked = parser.parse_args()
    found = measure(asked.runs, asked.smaller)
    results = summaries(found["ms"])
    print(*table("milliseconds", results, "idle"), sep="\n")
    goals = judged(found, results)
    print()
    for name, rates in found["mib_s"].items():
        print(f"{name}: {', '.join(f'{rate:.0f}' for rate in rates)} MiB/s")
    for goal in goals:
        word = "met" if goal["met"] else "MISSED"
        print(f"{goal['measure']}: {goal['ours']:,.2f}, goal {goal['goal']:,.2f}: {word}")
    figures = {"milliseconds": results, "goals": goals, "samples": found}
    write_report(asked.json, "downloads.hosting", ["Django", "gunicorn", "urllib3"], figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
