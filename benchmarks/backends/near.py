"""NearCache beside Redis, LMDB and process memory: `python -m benchmarks.backends.near`.

All are on one private Redis over a socket file; then behind a proxy that delays each direction, which
stands for a network. The listener is another process, as for three of four workers. Prints all
figures, then the table of goals.

calls    `get` of a key in the copy; `get, first` of one that is not; `get_many`, `set`, `incr`
page     requests/s under Gunicorn with 4 workers that serve one request at a time: 20 gets
         and 2 sets of 1,000 keys, or 2 sets of other keys
memory   of 4 workers that have read 100,000 entries of 1 KiB, without the server's
lag      from a write that another machine's RedisCache has acknowledged until the entry has left the
         copy here: idle, and during 5,000 other writes/s
listener the processor time of the process that applies invalidations, at 10,000 writes/s

Not measured: several machines, and a real network.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.backends.near_cache import goals
from benchmarks.backends.near_cache.peers import (
    CLOSE,
    NEAR,
    ON_REDIS,
    Peers,
    far,
    side_by_side,
)
from benchmarks.backends.shared_cache.goals import as_json, as_text, judge
from benchmarks.measuring import (
    Samples,
    Summary,
    command_line,
    progress,
    summaries,
    table,
    write_report,
)

_FAR_CALLS = ("get", "get, first", "set")
_PACKAGES = ("Django", "django-redis", "redis", "hiredis", "lmdb", "gunicorn")


def main() -> int:
    """Measure, print, and return 0; a missed goal is a finding, not an error."""
    asked = _asked()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made,
        side_by_side(Path(made), asked.round_trip_ms / 1000) as peers,
    ):
        samples, rates = _measure(peers, asked)
    results = summaries(samples)
    figures = figures_of(results)
    findings = judge(figures, goals.OURS, goals.GOALS)
    print(*table("microseconds, unless named", results, NEAR), sep="\n")
    print("", *as_text(findings), "", sep="\n")
    print(*(f"{name}: {rate:,.0f} writes per second" for name, rate in rates.items()), sep="\n")
    report = {
        "samples": samples,
        "summaries": results,
        "figures": figures,
        "writes_per_s": rates,
        "goals": [as_json(each) for each in findings],
    }
    write_report(asked.json, "backends.near", _PACKAGES, report)
    return 0


def _asked() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=200, help="per variant and round")
    parser.add_argument("--windows", type=int, default=4, help="rounds of the pages")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a window")
    parser.add_argument("--entries", type=int, default=100_000, help="of memory")
    parser.add_argument("--processes", type=int, default=4, help="of the pages and of memory")
    parser.add_argument("--round-trip-ms", type=float, default=1.0, help="of the network")
    parser.add_argument("--lags", type=int, default=300, help="writes whose lag is measured, twice")
    return parser.parse_args()


def _measure(peers: Peers, asked: argparse.Namespace) -> tuple[Samples, dict[str, float]]:
    # They import Django's caches, which need the settings.
    from benchmarks.backends.near_cache import calls, invalidations, memory  # noqa: PLC0415

    with calls.listener(NEAR), calls.listener(far(NEAR)):
        samples = calls.measure(CLOSE, asked.rounds, asked.calls)
        distant = calls.measure(ON_REDIS, asked.rounds, asked.calls, far, _FAR_CALLS)
        samples |= {what + goals.FAR: by_name for what, by_name in distant.items()}
    samples |= _pages(asked)
    samples[goals.MEMORY] = memory.measure(peers, asked.entries, asked.processes)
    rates: dict[str, float] = {}
    with calls.listener(NEAR) as listener:
        for name, per_s in ((goals.LAG_IDLE, 0), (goals.LAG_BUSY, 5_000)):
            found, rates[name] = invalidations.lags(peers, per_s, asked.lags)
            samples[name] = {NEAR: found}
            progress(name)
        (pid,) = listener.pids
        for name in (goals.LISTENER, goals.LISTENER_COPIED):
            share, rates[name] = invalidations.processor_share(
                pid, peers, 10_000, 2 * asked.seconds, copied=name == goals.LISTENER_COPIED
            )
            samples[name] = {NEAR: [share]}
    return samples, rates


def _pages(asked: argparse.Namespace) -> Samples:
    """Return the requests per second, by cache."""
    from benchmarks.backends.shared_cache import page  # noqa: PLC0415 (as above)

    samples: Samples = {}
    for measure, apart in ((goals.PAGE, ""), (goals.PAGE_APART, "1")):
        found = page.measure(
            [far(name) for name in ON_REDIS],
            asked.windows,
            asked.seconds,
            asked.processes,
            2 * asked.processes,
            {"WEB_THREADS": "1", "BENCHMARK_WRITES_APART": apart},
        )
        samples[measure] = {name: found[far(name)] for name in ON_REDIS}
    return samples


def figures_of(results: dict[str, dict[str, Summary]]) -> dict[str, dict[str, float]]:
    """Return the median of each measure by cache, and the p99 of lags."""
    figures = {
        measure: {name: found["median"] for name, found in by_name.items()}
        for measure, by_name in results.items()
    }
    for name in (goals.LAG_IDLE, goals.LAG_BUSY):
        figures[name + goals.P99] = {NEAR: results[name][NEAR]["p99"]}
    return figures


if __name__ == "__main__":
    sys.exit(main())
