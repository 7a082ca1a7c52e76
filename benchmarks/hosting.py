"""What hosting downloads costs the worker that hosts them, and what a kill costs the download.

    python -m benchmarks.hosting [--runs N] [--smaller N] [--json FILE]

Four questions, each with a goal, to a Gunicorn of 4 workers: how long other requests to the hosting
worker take while a job of 32 threads fetches 200 MiB/s; how long the view takes that starts a job of
200 files; how many bytes are fetched twice after SIGKILL; and how long the same files take by the
engine alone. The origin is on the same machine and takes its part of the processors, as does whoever
asks. Not measured: other worker classes, PostgreSQL, real networks.
"""

import contextlib
import datetime as dt
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measuring import ROOT, command_line, progress, summaries, table, write_report
from cacheapp import clock
from cacheapp.downloads.engine import Run
from cacheapp.downloads.plan import Item, Plan
from cacheapp.downloads.pool import Pool
from cacheapp.downloads.wanted import READ_BYTES, Limits
from cacheapp.lab.servers import GunicornServer
from cacheapp.lab.waiting import until
from cacheapp.lab.workers import Moved, NotReached, Workers
from tests.objects import Thing, Version
from tests.origin import Origin

MIB = 2**20
THREADS = 32
RATE = 200 * MIB
WORKERS = 4
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)")
GOALS = {"p99 beside a job, times idle": 2.0, "view, ms": 20.0, "hosted, times the engine": 1.05}


@contextlib.contextmanager
def _bulk_origin() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks._bulk_origin"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        yield process.stdout.readline().strip()
        assert process.stdin is not None  # noqa: S101 (the same)
        process.stdin.close()


class Quick:
    """A connection to one worker that is measured: no packet of it waits for another (TCP).

    `http.client` sends head and body apart, and the kernel acknowledges late what comes in parts: 40
    ms that say nothing about the worker.
    """

    def __init__(self, url: str, pid: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._host = host
        while True:
            self._socket = socket.create_connection((host, int(port)))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.ask("GET", "/api/worker")[1]["pid"] == pid:
                return
            self._socket.close()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[float, dict[str, Any]]:
        """Return the milliseconds that an answer took, and the answer."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(data)}\r\n"
        kind = "Content-Type: application/json\r\n\r\n"
        began_s = clock.monotonic_s()
        self._socket.sendall(f"{head}{kind}".encode() + data)
        answer = b""
        while not _is_whole(answer):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            got = self._socket.recv(65536)
            if not got:
                raise ConnectionError(f"closed after {answer!r}")
            answer += got
        took_ms = (clock.monotonic_s() - began_s) * 1e3
        return took_ms, json.loads(answer.partition(b"\r\n\r\n")[2])

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()


def _is_whole(answer: bytes) -> bool:
    head, gap, body = answer.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    return bool(gap and found and len(body) >= int(found[1]))


class Site:
    """A Gunicorn of its own, with a database."""

    def __init__(self, stack: contextlib.ExitStack, origins: list[str]) -> None:
        self.data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        env = {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DATA_DIR": str(self.data),
            "SECRET_KEY": "only-for-benchmarks-" + "x" * 50,
            "DEMO": "1",
            "SECURE_SSL_REDIRECT": "0",
            "LOG_LEVEL": "ERROR",
            "MAX_REQUESTS": "0",
            "WEB_CONCURRENCY": str(WORKERS),
            "DOWNLOAD_ORIGINS": ",".join(origins),
        }
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=ROOT, env={**os.environ, **env}, check=True)
        server = GunicornServer("project.wsgi:application", ROOT, env)
        stack.enter_context(server)
        self.url = server.url
        self.workers = stack.enter_context(Workers(server.url, count=WORKERS))
        server.start()

    def order(self, pid: int, urls: list[str]) -> dict[str, Any]:
        """Have a worker begin a job; return what it says."""
        wanted = {"urls": urls, "threads": THREADS}
        answer = self.workers.ask(pid, "POST", "/api/downloads", wanted)
        if answer.status != 202:  # noqa: PLR2004 (HTTP's)
            raise RuntimeError(f"not begun: {answer.body}")
        return answer.body

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return what some worker says about a job; an end in failure is an error."""
        try:
            pids = self.workers.find()
            found = self.workers.ask(pids[0], "GET", f"/api/downloads/{job['id']}").body
        except (Moved, NotReached):  # one that was killed
            return dict(job)
        if found.get("state") in {"failed", "cancelled"}:
            raise RuntimeError(f"the job failed: {found}")
        return found

    def end_of(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait for a job to succeed; return it."""

        def ended() -> dict[str, Any]:
            found = self.look(job)
            return found if found["state"] == "succeeded" else {}

        return until(ended, "the job to succeed", 300)

    def forget(self, job: dict[str, Any]) -> None:
        """Remove a job's files, or the disk fills up."""
        directory = self.data / "downloads" / job["id"]
        for path in list(directory.iterdir()):
            path.unlink()


def beside(site: Site, origin: str, smaller: int) -> tuple[dict[str, list[float]], float]:
    """Return request times of an idle and of a hosting worker, and the job's MiB/s."""
    pid = site.workers.find()[0]
    size, calls = 48 * MIB // smaller, max(20, 1000 // smaller)
    quick = Quick(site.url, pid)
    idle = [quick.ask("GET", "/api/worker")[0] for _ in range(calls)]
    rate = RATE // THREADS
    job = site.order(pid, [f"{origin}/files/{size}/0/{n}.bin?rate={rate}" for n in range(THREADS)])
    busy: list[float] = []
    began_s = clock.monotonic_s()
    while site.look(job)["state"] != "succeeded":
        busy += [quick.ask("GET", "/api/worker")[0] for _ in range(50)]
    quick.close()
    took_s = clock.monotonic_s() - began_s
    site.forget(job)
    return {"idle": idle, "beside a job": busy}, THREADS * size / MIB / took_s


def view_ms(site: Site, origin: str) -> float:
    """Return how long the view takes that starts a job of 200 files."""
    pid = site.workers.find()[0]
    urls = [f"{origin}/files/1000/0/{n}.bin" for n in range(200)]
    quick = Quick(site.url, pid)
    took_ms, job = quick.ask("POST", "/api/downloads", {"urls": urls, "threads": THREADS})
    quick.close()
    site.end_of(job)
    site.forget(job)
    return took_ms


def fetched_twice(site: Site, origin: Origin) -> tuple[int, float]:
    """Return the bytes that were sent twice because a worker was killed, and seconds until the end."""
    size = 4 * MIB
    for n in range(THREADS):
        origin.things[f"{n}"] = Thing([Version(bytes(size), f'"{n}"')], takes_s=3.0)
    pid = site.workers.find()[0]
    job = site.order(pid, [f"{origin.url}/thing/{n}" for n in range(THREADS)])
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
    items = tuple(Item(n, n, f"{origin}/files/{size}/0/{n}.bin", f"{n}.bin") for n in range(files))
    place = directory / uuid.uuid4().hex
    plan = Plan(
        *(uuid.uuid4(), place, THREADS, frozenset([origin]), items), token=1, resumable=True
    )
    run = Run(plan, Limits(max_bytes=2**40), lambda: None, Pool(THREADS))
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
    """Return the seconds that the threads had: from the job's start to its last file's end."""
    urls = [f"{origin}/files/{size}/0/{n}.bin" for n in range(files)]
    job = site.order(site.workers.find()[0], urls)
    started_at = site.end_of(job)["started_at"]
    began_s = dt.datetime.fromisoformat(started_at).timestamp()
    directory = site.data / "downloads" / job["id"]
    took_s = max(path.stat().st_mtime for path in directory.glob("*.bin")) - began_s
    site.forget(job)
    return float(took_s)


def measure(runs: int, smaller: int) -> dict[str, Any]:
    """Return all samples; what is compared takes turns."""
    found: dict[str, Any] = {"ms": {}, "seconds": {"engine": [], "hosted": []}, "mib_s": []}
    requests: dict[str, list[float]] = {"idle": [], "beside a job": []}
    views: list[float] = []
    twice: list[int] = []
    again: list[float] = []
    with contextlib.ExitStack() as stack:
        bulk = stack.enter_context(_bulk_origin())
        paced = stack.enter_context(Origin())
        site = Site(stack, [bulk, paced.url])
        size = max(MIB, 8 * MIB // smaller)
        for turn in range(runs):
            times, mib_s = beside(site, bulk, smaller)
            for name, samples in times.items():
                requests[name] += samples
            found["mib_s"].append(mib_s)
            views.append(view_ms(site, bulk))
            found["seconds"]["engine"].append(_alone_s(bulk, site.data, size, 64))
            found["seconds"]["hosted"].append(_hosted_s(site, bulk, size, 64))
            bytes_twice, took_s = fetched_twice(site, paced)
            twice.append(bytes_twice)
            again.append(took_s)
            progress(f"run {turn + 1} of {runs}")
    found["ms"] = {"GET /api/worker": requests, "POST of 200 files": {"hosting": views}}
    found["bytes_twice"], found["seconds_after_kill"] = twice, again
    return found


def judged(found: dict[str, Any], results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each goal beside what was measured."""
    times = results["GET /api/worker"]
    seconds = {name: sorted(it)[len(it) // 2] for name, it in found["seconds"].items()}
    ours = {
        "p99 beside a job, times idle": times["beside a job"]["p99"] / times["idle"]["p99"],
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
    """Print what was found beside its goals; missing one is no error: it is printed."""
    parser = command_line(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--smaller", type=int, default=1, metavar="N", help="divide sizes by this")
    asked = parser.parse_args()
    found = measure(asked.runs, asked.smaller)
    results = summaries(found["ms"])
    print(*table("milliseconds", results, "idle"), sep="\n")
    goals = judged(found, results)
    rates = ", ".join(f"{rate:.0f}" for rate in found["mib_s"])
    print(f"\nthe job beside which requests were made: {rates} MiB/s")
    for goal in goals:
        word = "met" if goal["met"] else "MISSED"
        print(f"{goal['measure']}: {goal['ours']:,.2f}, goal {goal['goal']:,.2f}: {word}")
    figures = {"milliseconds": results, "goals": goals, "samples": found}
    write_report(asked.json, "hosting", ["Django", "gunicorn", "urllib3"], figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
