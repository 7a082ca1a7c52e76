"""Bytes sent over bytes needed, on lines that are slow, or break again and again.

    python -m benchmarks.downloads.slow_line [--smaller N] [--json FILE]

An origin on loopback counts the bytes of bodies that it sends; where it resets a connection, it
first waits until the client's kernel has them. Each line has a goal: at most 1.02 times the bytes
of the files. Not measured: heads, TLS, packets that a real network loses.
"""

import dataclasses
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from benchmarks.measuring import command_line, progress, write_report
from cacheapp import clock
from cacheapp.downloads.engine.run import JobRun, QueuedFile
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.plan import Item, Plan, RetryPolicy
from cacheapp.processes.waiting import pause
from tests.objects import Thing, Version
from tests.origin import Origin

GOAL = 1.02
PIECE = 1000
"""Bytes that a slow line brings at once, about a packet."""


@dataclasses.dataclass(frozen=True)
class Line:
    """Files, and the line that they are fetched over."""

    name: str
    files: int
    size: int
    rate: int | None = None
    """Bytes per second of each connection; `None`: as fast as it can be."""
    reset_every: int | None = None
    """The bytes after which a connection is reset."""


LINES = (
    Line("16 x 4 MB, reset after each 200 kB", 16, 4_000_000, reset_every=200_000),
    Line("1 x 40 MB, reset after each 4 MB", 1, 40_000_000, reset_every=4_000_000),
    Line("64 x 400 kB at 20 kB/s each", 64, 400_000, rate=20_000),
    Line("64 x 100 kB at 3 kB/s each", 64, 100_000, rate=3_000),
    Line("32 x 400 kB at 20 kB/s each, reset after each 50 kB", 32, 400_000, 20_000, 50_000),
)


def fetch(line: Line) -> dict[str, Any]:
    """Fetch the files of a line; return what was sent and needed, and the seconds."""
    sent_at_once = min(line.size, line.reset_every or line.size)
    with Origin() as origin, tempfile.TemporaryDirectory() as directory:
        for n in range(line.files):
            origin.things[f"{n}"] = Thing(
                [Version(bytes([n]) * line.size, f'"{n}"')],
                cut_every=line.reset_every,
                reset=True,
                takes_s=sent_at_once / line.rate if line.rate else 0.0,
                piece_bytes=PIECE,
            )
        items = tuple(Item(n, n, f"{origin.url}/thing/{n}", f"{n}.bin") for n in range(line.files))
        plan = Plan(
            *(uuid.uuid4(), Path(directory) / "job", line.files, frozenset([origin.url]), items),
            networks=read_networks(["127.0.0.0/8"]),
            retries=RetryPolicy(first_wait_s=0.05),
        )
        pool: ThreadPool[QueuedFile] = ThreadPool(line.files)
        run = JobRun(plan, TransferLimits(max_bytes=2**40), lambda: None, pool)
        began_s = clock.monotonic_s()
        run.start()
        while not run.join(1.0):
            run.enforce_limits()
        took_s = clock.monotonic_s() - began_s
        done = run.changes()[1].files_done
        run.clean()
        pause(0.1)  # the origin counts a piece once it was sent
        sent = sum(sum(thing.sent) for thing in origin.things.values())
        requests = sum(len(thing.asked) for thing in origin.things.values())
    needed = line.files * line.size
    return {
        "files": line.files,
        "files_whole": done,
        "requests": requests,
        "sent": sent,
        "needed": needed,
        "ratio": sent / needed,
        "seconds": took_s,
    }


def _smaller(line: Line, times: int) -> Line:
    """Return a line whose files are smaller; those of a slow line take as much less time."""
    return dataclasses.replace(
        line,
        size=line.size // times,
        reset_every=line.reset_every and line.reset_every // times,
    )


def main() -> int:
    """Print the ratio of each line with its goal; a missed goal is printed, not an error."""
    parser = command_line(__doc__)
    parser.add_argument("--smaller", type=int, default=1, help="divide the sizes, for a try")
    asked = parser.parse_args()
    found = {}
    for whole in LINES:
        line = _smaller(whole, asked.smaller)
        it = found[line.name] = fetch(line)
        met = it["ratio"] <= GOAL and it["files_whole"] == line.files
        print(
            f"{line.name}: {it['files_whole']} whole, {it['requests']} requests, {it['sent']:,} bytes "
            f"sent for {it['needed']:,}: {it['ratio']:.4f}, goal {GOAL}: {'met' if met else 'MISSED'} "
            f"({it['seconds']:.1f} s)",
            flush=True,
        )
        progress(line.name)
    write_report(asked.json, "downloads.slow_line", ["urllib3"], {"goal": GOAL, "lines": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
