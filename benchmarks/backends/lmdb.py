"""LMDBCache beside everything else: `python -m benchmarks.backends.lmdb`.

Prints all figures, then the table of goals: goal, figure, met or missed. All caches are measured in
one run and take turns. Parts (`--parts`):

calls   get, miss, set, incr, aget and a request (20 gets, 2 sets, `close()`), in one process
mix     4 processes, 90 % get and 10 % set: operations per second and tails
page    requests per second of a page under Gunicorn with 4 workers
memory  of 4 workers with 100,000 entries of 1 KiB
growth  get of 1,000 to 1,000,000 entries, 10,000,000 with `--full`

`--quick` takes three minutes: the caches that goals compare with, in fewer and shorter windows.

All use pickle, in directories beside each other (`--under`). Not measured: a network between, a
cold page cache, a cache at its size limit (`hit_ratio` does that), threads within one process; the
memory of FileBasedCache, which lists its whole directory on every set, and, without `--full`, of
DatabaseCache, which counts its rows: they take very long to fill.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.backends.shared_cache import goals
from benchmarks.backends.shared_cache.peers import NAMES, Peers, side_by_side
from benchmarks.measuring import Samples, command_line, summaries, table, write_report

PARTS = ("calls", "mix", "page", "memory", "growth")
_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_FULL_SIZE = 10_000_000
# Of memory: too slow to fill, or the same store as another one's (django-redis, pylibmc).
_NO_MEMORY = {"filebased", "redis", "pymemcache"}
_NO_QUICK_MEMORY = {"database", "diskcache", "django-redis"}  # no goal compares with them
_QUICK: dict[str, Any] = {
    "caches": ("locmem", "diskcache", "django-redis", "our-lmdb"),
    "rounds": 40,
    "windows": 5,
    "seconds": 0.5,
    "sizes": (1_000, 100_000),
}
_PACKAGES = (
    *("Django", "diskcache", "django-redis", "redis", "hiredis", "pylibmc", "pymemcache"),
    *("lmdb", "gunicorn"),
)


def main() -> int:
    """Measure, print, and return 0; a missed goal is a finding, not an error."""
    asked = _asked()
    found = json.loads(asked.show.read_text()) if asked.show else _run(asked)
    results = summaries(found["samples"])
    figures = goals.figures_of(found["samples"], found["processes"], found["sizes"])
    findings = goals.judge(figures, found["ours"])
    if asked.markdown:
        print(*goals.as_markdown(findings), "", *goals.medians_as_markdown(figures), sep="\n")
    else:
        print(*table("microseconds, unless named", results, "locmem"), sep="\n")
        print(f"\nGoals for {found['ours']}:", *goals.as_text(findings), sep="\n")
    print(*(f"{name} was not measured: {why}" for name, why in found["missing"].items()), sep="\n")
    judged = [goals.as_json(finding) for finding in findings]
    report = {**found, "goals": judged, "summaries": results}
    write_report(asked.json, "backends.lmdb", _PACKAGES, report)
    return 0


def _run(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what was measured, and what is needed to read it."""
    with (
        tempfile.TemporaryDirectory(dir=asked.under, ignore_cleanup_errors=True) as directory,
        side_by_side(asked.caches, Path(directory)) as peers,
    ):
        samples = measure(peers, asked)
    return {
        "ours": asked.ours,
        "missing": peers.missing,
        "processes": asked.processes,
        "sizes": sizes_of(asked),
        "samples": samples,
    }


def _asked() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--caches", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--ours", choices=NAMES, default="our-lmdb", help="whose goals are judged")
    parser.add_argument("--rounds", type=int, default=20, help="of calls and growth")
    parser.add_argument("--calls", type=int, default=1000, help="per cache and round, at most")
    parser.add_argument("--windows", type=int, default=5, help="rounds of mix and page")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window")
    parser.add_argument("--processes", type=int, default=4, help="of mix, page and memory")
    parser.add_argument("--connections", type=int, default=32, help="that load the page")
    parser.add_argument("--entries", type=int, default=100_000, help="of memory")
    parser.add_argument("--sizes", nargs="+", type=int, default=_SIZES, help="of growth")
    parser.add_argument("--full", action="store_true", help="also what takes very long")
    parser.add_argument("--under", type=Path, help="directory whose filesystem is measured")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page instead")
    parser.add_argument(
        "--show", type=Path, metavar="FILE", help="measure nothing; print this result"
    )
    parser.add_argument("--quick", action="store_true", help="three minutes, not fifteen")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(**_QUICK)
    asked = parser.parse_args()
    if asked.show and asked.json:
        parser.error("--show measures nothing that --json could keep")
    return asked


def measure(peers: Peers, asked: argparse.Namespace) -> Samples:
    """Return the samples of the parts asked for, by measure and cache."""
    # They import Django's caches, which need the settings.
    from benchmarks.backends.shared_cache import calls, growth, memory, mix, page  # noqa: PLC0415

    names = list(peers.caches)
    samples: Samples = {}
    if "calls" in asked.parts:
        samples |= calls.measure(names, asked.rounds, asked.calls)
    if "mix" in asked.parts:
        samples |= mix.measure(names, asked.windows, asked.seconds, asked.processes)
    if "page" in asked.parts:
        samples[goals.PAGE] = page.measure(
            names, asked.windows, asked.seconds, asked.processes, asked.connections
        )
    if "memory" in asked.parts:
        apart = _NO_MEMORY if asked.full else _NO_MEMORY | {"database"}
        if asked.quick:
            apart = apart | _NO_QUICK_MEMORY
        kept = [name for name in names if name not in apart]
        samples[goals.MEMORY_MIB] = memory.measure(peers, kept, asked.entries, asked.processes)
    if "growth" in asked.parts:
        grown = [name for name in ("locmem", asked.ours) if name in names]
        samples |= growth.measure(
            grown, sizes_of(asked), peers.directory, asked.rounds, asked.calls
        )
    return samples


def sizes_of(asked: argparse.Namespace) -> list[int]:
    """Return the numbers of entries whose growth is measured."""
    return [*asked.sizes, *([_FULL_SIZE] if asked.full else [])]


if __name__ == "__main__":
    sys.exit(main())
