"""Time, CPU and memory of the download engine, compared with other tools.

    python -m benchmarks.downloads.engine [--runs N] [--only TEXT] [--smaller N] [--json FILE]

The variants take turns in each run, each in its own process, against one loopback origin that uses
part of the processors. Files go to BENCH_DIR: memory unless it names a disk, whose other users
would disturb the figures. Tools that are not installed are skipped and named. Not measured: real
networks, and disks.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.downloads._bulk_origins import bulk_origins, files_directory
from benchmarks.downloads._peers import find_program
from benchmarks.measuring.report import command_line, write_report

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"aria2c": "--version", "curl": "--version", "wget": "--version", "s5cmd": "version"}
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Work:
    """Files to fetch, the tools to compare, and the goals."""

    name: str
    files: int
    size: int
    delay_ms: int
    threads: int
    peers: tuple[str, ...]
    measure: str = "wall_s"
    tls: bool = False
    digest: bool = True
    prefix: bool = False
    parts: int = 1
    """Connections for one file."""
    rate: int = 0
    """Bytes per second of a connection, paced by the origin's kernel; 0: no limit."""
    divide: float = 1.0
    """The unit of the measure: files, or GiB."""
    goal: float | None = None
    """An absolute upper limit."""
    ratios: tuple[tuple[str, float], ...] = ()
    """An upper limit as a multiple of that tool's figure."""


WORKS = (
    Work(
        "200 files, 5 s each, 200 threads, HTTP",
        200,
        10_000,
        5000,
        200,
        ("engine", "aria2c", "curl", "requests", "boto3", "wget"),
        goal=5.3,
        ratios=(("aria2c", 1.05),),
    ),
    Work(
        "200 files, 5 s each, 200 threads, HTTPS",
        200,
        10_000,
        5000,
        200,
        ("engine", "aria2c", "curl", "requests", "boto3"),
        tls=True,
        goal=5.45,
        ratios=(("aria2c", 1.05), ("requests", 0.55), ("boto3", 0.55)),
    ),
    Work(
        "200 objects of a prefix, 5 s each, 200 threads",
        200,
        10_000,
        5000,
        200,
        ("command", "s5cmd"),
        prefix=True,
        goal=5.8,
    ),
    Work("one after the other: 3 files, 5 s each", 3, 10_000, 5000, 1, ("engine",), goal=None),
    Work("50 ms, 8 threads (ideal 1.25 s)", 200, 1000, 50, 8, ("engine", "curl"), goal=1.25 * 1.08),
    Work(
        "50 ms, 32 threads (ideal 1.25 s)", 800, 1000, 50, 32, ("engine", "curl"), goal=1.25 * 1.15
    ),
    Work(
        "50 ms, 64 threads (ideal 1.25 s)", 1600, 1000, 50, 64, ("engine", "curl"), goal=1.25 * 1.25
    ),
    Work(
        "200 x 5 MiB, 32 threads, no digest",
        200,
        5 * MIB,
        0,
        32,
        ("engine", "aria2c", "curl", "requests", "s5cmd"),
        digest=False,
        prefix=True,
        ratios=(("aria2c", 0.9),),
    ),
    Work(
        "200 x 5 MiB, 32 threads, SHA-256",
        200,
        5 * MIB,
        0,
        32,
        ("engine", "aria2c", "curl"),
        ratios=(("aria2c", 1.15),),
    ),
    Work(
        "CPU seconds per GiB, one stream, HTTP",
        1,
        1024 * MIB,
        0,
        1,
        ("engine", "curl"),
        "cpu_s",
        digest=False,
        ratios=(("curl", 1.0),),
    ),
    Work(
        "CPU seconds per GiB, one stream, HTTPS",
        1,
        1024 * MIB,
        0,
        1,
        ("engine", "curl"),
        "cpu_s",
        tls=True,
        digest=False,
        ratios=(("curl", 1.1),),
    ),
    Work(
        "one file of 1 GiB in 8 parts, no digest",
        1,
        1024 * MIB,
        0,
        8,
        ("engine", "aria2c", "curl"),
        digest=False,
        parts=8,
        ratios=(("aria2c", 1.0),),
    ),
    Work(
        "one file of 1 GiB in 8 parts, SHA-256",
        1,
        1024 * MIB,
        0,
        8,
        ("engine", "aria2c", "curl"),
        parts=8,
        ratios=(("aria2c", 1.0),),
    ),
    Work(
        "one file of 80 MB in 8 parts, 2 MB/s a connection (ideal 5 s)",
        1,
        80_000_000,
        0,
        8,
        ("engine", "aria2c"),
        parts=8,
        rate=2_000_000,
        ratios=(("aria2c", 1.0),),
    ),
    Work(
        "CPU ms per file, 2,000 x 4 KiB, 32 threads",
        2000,
        4096,
        0,
        32,
        ("engine", "command", "boto3", "requests", "curl"),
        "cpu_s",
        divide=2.0,
        goal=0.30,
        ratios=(("boto3", 0.25),),
    ),
    Work(
        "CPU ms per object of a prefix, 2,000 x 4 KiB, 32 threads",
        2000,
        4096,
        0,
        32,
        ("command", "s5cmd"),
        "cpu_s",
        prefix=True,
        divide=2.0,
    ),
    Work(
        "memory above idle, 200 threads, MB",
        200,
        MIB,
        1000,
        200,
        ("engine", "requests"),
        "memory_mb",
        goal=60.0,
    ),
)


def _programs() -> dict[str, str | None]:
    """Return the versions of the external programs; `None` for one that is not installed."""
    found: dict[str, str | None] = dict.fromkeys(PROGRAMS)
    for name, asked in PROGRAMS.items():
        if (path := find_program(name)) is not None:
            told = subprocess.run([path, asked], capture_output=True, text=True, check=True)
            found[name] = told.stdout.splitlines()[0]
    return found


def once(work: Work, peer: str, origin: str, authority: str) -> float:
    """Measure one tool for a workload, once."""
    with tempfile.TemporaryDirectory(dir=files_directory()) as place:
        directory = Path(place) / "files"
        directory.mkdir()
        paced = f"?rate={work.rate}" if work.rate else ""
        below = f"{work.size}/{work.delay_ms}/{work.files}"
        found: dict[str, Any] = {
            "urls": [f"{origin}/files/{below}/{n}.bin{paced}" for n in range(work.files)],
            "parts": work.parts,
            "threads": work.threads,
            "directory": str(directory),
            "digest": work.digest,
            "endpoint": origin,
        }
        if work.prefix:
            found["prefix"] = f"{below}/"
        env = {
            **os.environ,
            "DATA_DIR": f"{place}/data",
            "SECRET_KEY": "only-for-benchmarks-" + "x" * 50,
            "ALLOWED_HOSTS": "localhost",
            "LOG_LEVEL": "ERROR",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
        }
        if work.tls:
            found["authority"] = env["SSL_CERT_FILE"] = authority
        order = Path(place) / "work.json"
        order.write_text(json.dumps(found))
        command = [sys.executable, "-m", "benchmarks.downloads._peers", peer, str(order)]
        child = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        if child.returncode:
            raise RuntimeError(f"{peer}: {child.stderr[-2000:]}")
        whole = [path for path in directory.rglob("*.bin") if path.stat().st_size == work.size]
        if len(whole) != work.files:
            raise RuntimeError(f"{peer}: {len(whole)} whole files of {work.files}")
        return float(json.loads(child.stdout)[work.measure]) / work.divide


def measure(works: list[Work], runs: int) -> dict[str, dict[str, list[float]]]:
    """Return the samples of each tool by workload; the tools take turns."""
    samples: dict[str, dict[str, list[float]]] = {}
    with bulk_origins() as (plain, secure, authority):
        for work in works:
            peers = [name for name in work.peers if name not in PROGRAMS or find_program(name)]
            found = samples[work.name] = {peer: [] for peer in peers}
            for _ in range(runs):
                for peer in peers:
                    origin = secure if work.tls else plain
                    found[peer].append(once(work, peer, origin, authority))
            _show(work, found)
    return samples


def _show(work: Work, found: dict[str, list[float]]) -> None:
    medians = {peer: statistics.median(raw) for peer, raw in found.items()}
    print(f"\n{work.name}")
    for peer, raw in found.items():
        print(f"  {peer:<10}{medians[peer]:>9.3f}   {min(raw):.3f} to {max(raw):.3f}")
    for text, met in verdicts(work, medians):
        print(f"  {'met   ' if met else 'MISSED'} {text}")


def verdicts(work: Work, medians: dict[str, float]) -> list[tuple[str, bool]]:
    """Return each goal and whether it is met; goals relative to absent tools are omitted."""
    ours = medians[work.peers[0]]
    found = []
    if work.goal is not None:
        found.append((f"{ours:.3f}, goal at most {work.goal:.3f}", ours <= work.goal))
    for peer, factor in work.ratios:
        if peer in medians:
            ratio = ours / medians[peer]
            found.append((f"{ratio:.2f}x {peer}, goal at most {factor:.2f}x", ratio <= factor))
    return found


def smaller(work: Work, by: int) -> Work:
    """Return a smaller workload, for a test run."""
    return dataclasses.replace(
        work,
        files=max(1, work.files // by),
        size=max(1, work.size // by),
        delay_ms=work.delay_ms // by,
        threads=max(1, work.threads // by),
    )


def main() -> int:
    """Print each workload with its goals, and those that were missed."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="works whose name contains this")
    parser.add_argument("--smaller", type=int, default=1, metavar="N", help="divide all work by N")
    options = parser.parse_args()
    programs = _programs()
    absent = [name for name, version in programs.items() if version is None]
    print(f"not on this machine: {', '.join(absent) or 'none'}")
    works = [smaller(work, options.smaller) for work in WORKS if options.only in work.name]
    samples = measure(works, options.runs)
    judged = {
        work.name: verdicts(
            work, {peer: statistics.median(raw) for peer, raw in samples[work.name].items()}
        )
        for work in works
    }
    figures = {
        "programs": programs,
        "files": files_directory(),
        "samples": samples,
        "verdicts": judged,
    }
    write_report(
        options.json,
        "downloads.engine",
        ("urllib3", "botocore", "requests", "boto3", "Django"),
        figures,
    )
    missed = [name for name, goals in judged.items() if not all(met for _, met in goals)]
    print(f"\nmissed: {'; '.join(missed)}" if missed else "\nall goals met")
    return 0


if __name__ == "__main__":
    sys.exit(main())
