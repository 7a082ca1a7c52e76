"""A job of 100,000 files: its rows per second, and what it costs the worker that runs it.

    python -m benchmarks.downloads.many_files [--files N] [--json FILE]

A Gunicorn with 4 workers downloads an S3 prefix of files of 100 bytes with 32 threads. Until the
job has ended, the worker that runs it responds to other requests, one after the other. The job must
keep its owner. The origin, the client and all workers use the same processors. Not measured:
PostgreSQL, real networks.
"""

import contextlib
import datetime as dt
import json
import statistics
import sys
import threading
from typing import Any

from benchmarks.downloads._bulk_origins import bulk_origins
from benchmarks.downloads._hosting_site import Quick, Site
from benchmarks.measuring import command_line, progress, summaries, table, write_report
from cacheapp import clock

FILES, BYTES, THREADS = 100_000, 100, 32
GOALS = {"adoptions": 0.0}
_IDLE_CALLS = 2000
_LOOK_S = 5.0
_BETWEEN_S = 0.01


def measure(files: int) -> dict[str, Any]:
    """Return all samples."""
    with contextlib.ExitStack() as stack:
        origin, _, authority = stack.enter_context(bulk_origins())
        prefix = f"s3://files/{BYTES}/0/{files}/"
        settings = {
            "DJANGO_SETTINGS_MODULE": "benchmarks.downloads.many_files_settings",
            "DOWNLOAD_BUCKETS": json.dumps({prefix: {"endpoint": origin, "anonymous": True}}),
            "DOWNLOAD_NETWORKS": "127.0.0.0/8",
        }
        site = Site(stack, [origin], authority, **settings)
        pid = site.workers.find()[0]
        quick = Quick(site.url, pid)
        idle = [quick.ask("GET", "/api/worker")[0] for _ in range(_IDLE_CALLS)]
        job = site.create(pid, {"s3": prefix, "threads": THREADS})
        busy: list[float] = []
        look_at_s = 0.0
        pause = threading.Event()
        while True:
            busy.append(quick.ask("GET", "/api/worker")[0])
            pause.wait(_BETWEEN_S)
            if clock.monotonic_s() >= look_at_s:
                look_at_s = clock.monotonic_s() + _LOOK_S
                found = site.look(job)
                progress(f"{found['files_done']} of {found['files_total']} files")
                if found["state"] == "succeeded":
                    break
        quick.close()
    began, ended = (dt.datetime.fromisoformat(found[it]) for it in ("started_at", "finished_at"))
    return {
        "ms": {"GET /api/worker": {"idle": idle, "beside the job": busy}},
        "files": found["files_done"],
        "seconds": (ended - began).total_seconds(),
        "adoptions": found["adoptions"],
    }


def main() -> int:
    """Print the results with their goals; a missed goal is printed, not an error."""
    parser = command_line(__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    asked = parser.parse_args()
    found = measure(asked.files)
    results = summaries(found["ms"])
    print(*table("milliseconds", results, "idle"), sep="\n")
    rate = found["files"] / found["seconds"]
    print(f"\n{found['files']} files in {found['seconds']:.1f} s: {rate:.0f} rows/s")
    print(f"adoptions: {found['adoptions']}, goal 0: {'MISSED' if found['adoptions'] else 'met'}")
    worst = statistics.quantiles(found["ms"]["GET /api/worker"]["beside the job"], n=1000)[-1]
    print(f"p99.9 beside the job: {worst:.1f} ms")
    figures = {"milliseconds": results, "limits": GOALS, "samples": found}
    write_report(asked.json, "downloads.many_files", ["Django", "gunicorn", "urllib3"], figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
