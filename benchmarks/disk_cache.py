"""DiskCache beside diskcache's own backend, call by call: `python -m benchmarks.disk_cache`.

Both use pickle and their defaults, in directories beside each other (`--under`). Variants take
turns, a slice of calls each, so that what else the machine does meets both. A request is 20 gets,
2 sets and `close()`, as Django does. Not measured: several processes or threads, a cold page
cache, a directory at its size limit.
"""

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import django

from benchmarks.redis_cache import _commit, _slice, summary

Call = Callable[[], Any]
_VALUE = {"name": "a user", "numbers": list(range(20)), "text": "x" * 200}
_LARGE = b"x" * 50_000
_KEYS = [f"key-{n}" for n in range(100)]
_MANY = dict.fromkeys(_KEYS, _VALUE)
_LIMITS: dict[str, float | None] = {
    "get": 1.15,
    "set": 1.15,
    "get, missing": None,
    "incr": None,
    "add, lost": None,
    "get 50 kB": None,
    "set 50 kB": None,
    "get_many 100": None,
    "set_many 100": None,
    "request": 0.1,
}
_STOCK = "diskcache"


def _calls(cache: Any) -> dict[str, Call]:
    cache.set_many({**_MANY, "value": _VALUE, "large": _LARGE, "count": 1}, timeout=None)

    def request() -> None:
        for key in _KEYS[:20]:
            cache.get(key)
        cache.set("key-1", _VALUE)
        cache.set("key-2", _VALUE)
        cache.close()

    return {
        "get": lambda: cache.get("value"),
        "set": lambda: cache.set("value", _VALUE),
        "get, missing": lambda: cache.get("nothing"),
        "incr": lambda: cache.incr("count"),
        "add, lost": lambda: cache.add("value", _VALUE),
        "get 50 kB": lambda: cache.get("large"),
        "set 50 kB": lambda: cache.set("large", _LARGE),
        "get_many 100": lambda: cache.get_many(_KEYS),
        "set_many 100": lambda: cache.set_many(_MANY),
        "request": request,
    }


def measure(caches: dict[str, Any], rounds: int, calls: int) -> dict[str, dict[str, list[float]]]:
    """Return the samples by operation and variant."""
    variants = {name: _calls(cache) for name, cache in caches.items()}
    samples: dict[str, dict[str, list[float]]] = {}
    for operation in _LIMITS:
        few = "many" in operation or operation == "request"
        each = max(5, calls // 20) if few else calls
        for variant in variants.values():
            _slice(variant[operation], each)
        samples[operation] = {name: [] for name in variants}
        for turn in range(rounds):
            for name in list(variants) if turn % 2 else list(reversed(variants)):
                samples[operation][name] += _slice(variants[name][operation], each)
    return samples


def _circumstances() -> dict[str, Any]:
    return {
        "commit": _commit(),
        "command": "python -m benchmarks.disk_cache " + " ".join(sys.argv[1:]),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "versions": {
            "sqlite": sqlite3.sqlite_version,
            **{name: metadata.version(name) for name in ("django", "diskcache")},
        },
    }


def main() -> int:
    """Measure, print, and return 0; a ratio above its limit is marked, not an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=200, help="per variant and round")
    parser.add_argument("--under", type=Path, help="directory whose filesystem is measured")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    asked = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from diskcache import DjangoCache  # noqa: PLC0415 (needs the settings)

    from cacheapp.backends import DiskCache  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=asked.under) as directory:
        caches = {
            _STOCK: DjangoCache(f"{directory}/stock", {}),
            "ours": DiskCache(f"{directory}/ours", {}),
            "ours, signed": DiskCache(f"{directory}/signed", {"OPTIONS": {"signed": True}}),
        }
        samples = measure(caches, asked.rounds, asked.calls)
    results = {
        operation: {name: summary(found) for name, found in by_name.items()}
        for operation, by_name in samples.items()
    }
    _show(results)
    if asked.json:
        report = {**_circumstances(), "microseconds": results, "samples": samples}
        asked.json.write_text(json.dumps(report))
    return 0


def _show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    print(f"{'microseconds':<14}{'':<14}{'median':>9}{'p90':>9}{'p99':>9}{'max':>10}   ratio")
    for operation, by_name in results.items():
        base = by_name[_STOCK]["median"]
        limit = _LIMITS[operation]
        for name, found in by_name.items():
            numbers = "".join(f"{found[column]:>9.1f}" for column in ("median", "p90", "p99"))
            mark = f"(limit {limit})" if limit and name == "ours" else ""
            ratio = found["median"] / base
            print(f"{operation:<14}{name:<14}{numbers}{found['max']:>10.1f}   {ratio:.2f} {mark}")


if __name__ == "__main__":
    sys.exit(main())
