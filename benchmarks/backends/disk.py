"""DiskCache beside diskcache's own backend, call by call: `python -m benchmarks.backends.disk`.

Both use pickle and their defaults, in directories beside each other (`--under`). Variants take
turns, a slice of calls each, so that what else the machine does meets both. A request is 20 gets,
2 sets and `close()`, as Django does. Not measured: several processes or threads, a cold page
cache, a directory at its size limit.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    Call,
    command_line,
    compare_calls,
    read_amount,
    set_up_django,
    summaries,
    table,
    write_report,
)
from benchmarks.measuring.values import KEYS, LARGE, MANY, VALUE, many_calls, request_of

_STOCK = "diskcache"
_LIMITS = {"get": {"ours": 1.15}, "set": {"ours": 1.15}, "request": {"ours": 0.1}}


def _calls(cache: Any) -> dict[str, Call]:
    cache.set_many({**MANY, "value": VALUE, "large": LARGE, "count": 1}, timeout=None)
    return {
        "get": lambda: cache.get("value"),
        "set": lambda: cache.set("value", VALUE),
        "get, missing": lambda: cache.get("nothing"),
        "incr": lambda: cache.incr("count"),
        "add, lost": lambda: cache.add("value", VALUE),
        "get 50 kB": lambda: cache.get("large"),
        "set 50 kB": lambda: cache.set("large", LARGE),
        **many_calls(cache),
        "request": request_of(cache, KEYS, VALUE),
    }


def main() -> int:
    """Measure, print, and return 0; a ratio above its limit is marked, not an error."""
    parser = command_line(__doc__)
    parser.add_argument("--under", type=Path, help="directory whose filesystem is measured")
    asked = read_amount(parser, calls=200, quick_calls=40)
    set_up_django()
    from diskcache import DjangoCache  # noqa: PLC0415 (needs the settings)

    from cacheapp.backends import DiskCache  # noqa: PLC0415

    def times(operation: str) -> int:
        few = "many" in operation or operation == "request"
        return max(1, asked.calls // 20) if few else int(asked.calls)

    with tempfile.TemporaryDirectory(dir=asked.under) as directory:
        caches = {
            _STOCK: DjangoCache(f"{directory}/stock", {}),
            "ours": DiskCache(f"{directory}/ours", {}),
            "ours, unsigned": DiskCache(f"{directory}/unsigned", {"OPTIONS": {"signed": False}}),
        }
        variants = {name: _calls(cache) for name, cache in caches.items()}
        samples = compare_calls(variants, asked.rounds, times)
    results = summaries(samples)
    print(*table("microseconds", results, _STOCK, _LIMITS), sep="\n")
    figures = {"microseconds": results, "samples": samples}
    write_report(asked.json, "backends.disk", ["Django", "diskcache"], figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
