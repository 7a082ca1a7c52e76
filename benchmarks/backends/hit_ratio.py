"""How much LMDBCache keeps of what is asked for again: `python -m benchmarks.backends.hit_ratio`.

Requests follow Zipf's law, for caches of 1 % and 10 % of the keys (`MAX_ENTRIES`). A request is a
`get`, and a `set` where that misses. LMDBCache, for real, beside exact LRU, SIEVE and FIFO that
get the very same requests; goal: at least LRU's hit ratio. `--full` is a million requests. Not
measured: values of different sizes, entries with deadlines, several processes, the request streams
of real sites.
"""

import argparse
import array
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.backends.eviction import zipf
from benchmarks.backends.eviction.policies import Fifo, Lru, Sieve
from benchmarks.measuring import command_line, progress, set_up_django, write_report

_FULL = 1_000_000
_ALPHAS = (0.6, 0.8, 1.0, 1.2)
_PARTS = (0.01, 0.1)
_OURS = "LMDBCache"
_NAMES = ("LRU", "SIEVE", "FIFO", _OURS)
Ask = Callable[[int], bool]
Row = dict[str, Any]


def main() -> int:
    """Measure, print, and return 0; a missed goal is a finding, not an error."""
    asked = _asked()
    set_up_django()
    print(f"{'alpha':>6}{'room':>8}", *(f"{name:>10}" for name in _NAMES), "  goal: at least LRU's")
    rows = []
    for alpha in asked.alphas:
        for part in _PARTS:
            room = max(1, round(part * asked.keys))
            with tempfile.TemporaryDirectory(dir=asked.under) as directory:
                row = _row(alpha, room, asked, directory)
            rows.append(row)
            print(_line(row), flush=True)
    packages = ["Django", "lmdb"]
    figures = {"requests": _requests(asked), "keys": asked.keys, "seed": asked.seed, "rows": rows}
    write_report(asked.json, "backends.hit_ratio", packages, figures)
    return 0


def _asked() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--alphas", nargs="+", type=float, default=_ALPHAS)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--full", action="store_true", help=f"{_FULL:,} requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--under", type=Path, help="directory whose filesystem is used")
    return parser.parse_args()


def _requests(asked: argparse.Namespace) -> int:
    return _FULL if asked.full else int(asked.requests)


def _row(alpha: float, room: int, asked: argparse.Namespace, directory: str) -> Row:
    """Return the hit ratios of all for one workload."""
    from cacheapp.backends import LMDBCache  # noqa: PLC0415 (needs the settings)

    cache = LMDBCache(directory, {"TIMEOUT": None, "OPTIONS": {"MAX_ENTRIES": room}})
    count = _requests(asked)
    asks: dict[str, Ask] = {
        "LRU": Lru(room).ask,
        "SIEVE": Sieve(room).ask,
        "FIFO": Fifo(room).ask,
        _OURS: _asking(cache),
    }
    drawn = array.array("L", zipf.requests(alpha, asked.keys, count, asked.seed))
    row: Row = {"alpha": alpha, "room": room}
    for name, ask in asks.items():
        row[name] = sum(map(ask, drawn)) / count
    row["entries"] = sum(1 for _ in cache.iter_keys("*"))
    if row["entries"] > room:
        raise RuntimeError(f"{row['entries']} entries; expected at most MAX_ENTRIES, {room}")
    progress(f"alpha {alpha}, room for {room:,} of {asked.keys:,} keys")
    return row


def _asking(cache: Any) -> Ask:
    def ask(number: int) -> bool:
        key = f"key-{number}"
        if cache.get(key) is not None:
            return True
        cache.set(key, number)
        return False

    return ask


def _line(row: Row) -> str:
    ratios = " ".join(f"{row[name]:>10.4f}" for name in _NAMES)
    verdict = "met" if row[_OURS] >= row["LRU"] else "MISSED"
    return f"{row['alpha']:>6}{row['room']:>8,} {ratios}   {verdict}"


if __name__ == "__main__":
    sys.exit(main())
