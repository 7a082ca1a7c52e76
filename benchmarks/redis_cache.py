"""RedisCache beside django-redis's own, call by call: `python -m benchmarks.redis_cache`.

Both use pickle, on one private Redis over a socket file; ours signs. Variants take turns, a slice
of calls each, so that what else the machine does meets both. Not measured: a network between
(it would hide the difference), several threads, values beyond the size given.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import django

from cacheapp.lab.servers import RedisServer

Call = Callable[[], Any]
_VALUE = {"name": "a user", "numbers": list(range(20)), "text": "x" * 200}
_KEYS = [f"key-{n}" for n in range(100)]
_MANY = dict.fromkeys(_KEYS, _VALUE)
_LIMITS = {"get": 1.15, "set": 1.15, "incr": 1.15, "get_many 100": 1.2, "set_many 100": 1.2}


def _calls(cache: Any) -> dict[str, Call]:
    cache.set("value", _VALUE)
    cache.set("count", 1)
    cache.set_many(_MANY)
    return {
        "get": lambda: cache.get("value"),
        "set": lambda: cache.set("value", _VALUE),
        "incr": lambda: cache.incr("count"),
        "get_many 100": lambda: cache.get_many(_KEYS),
        "set_many 100": lambda: cache.set_many(_MANY),
    }


def _slice(call: Call, times: int) -> list[float]:
    """Return the time of each call in microseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter_ns()
        call()
        took.append((time.perf_counter_ns() - began) / 1000)
    return took


def measure(caches: dict[str, Any], rounds: int, calls: int) -> dict[str, dict[str, list[float]]]:
    """Return the samples by operation and variant."""
    variants = {name: _calls(cache) for name, cache in caches.items()}
    samples: dict[str, dict[str, list[float]]] = {}
    for operation in _LIMITS:
        each = max(10, calls // 10) if "many" in operation else calls
        for variant in variants.values():
            _slice(variant[operation], each)  # connections, scripts, branch predictors
        samples[operation] = {name: [] for name in variants}
        for turn in range(rounds):
            names = list(variants) if turn % 2 else list(reversed(variants))
            for name in names:
                samples[operation][name] += _slice(variants[name][operation], each)
    return samples


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Return median, p90, p99 and maximum."""
    cuts = statistics.quantiles(samples, n=100)
    return {"median": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": max(samples)}


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _circumstances() -> dict[str, Any]:
    return {
        "commit": _commit(),
        "command": "python -m benchmarks.redis_cache " + " ".join(sys.argv[1:]),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "versions": {
            name: metadata.version(name) for name in ("django", "django-redis", "redis", "hiredis")
        },
    }


def main() -> int:
    """Measure, print, and return 0; a ratio above its limit is marked, not an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=300, help="per variant and round")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    asked = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from django_redis.cache import RedisCache as Stock  # noqa: PLC0415 (needs the settings)

    from cacheapp.backends import RedisCache  # noqa: PLC0415

    with RedisServer() as server:
        server.start()
        caches = {
            "django-redis": Stock(server.url, {"KEY_PREFIX": "stock"}),
            "ours, signed": RedisCache(server.url, {"KEY_PREFIX": "ours"}),
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
    print(f"{'microseconds':<14}{'':<16}{'median':>9}{'p90':>9}{'p99':>9}{'max':>10}   ratio")
    for operation, by_name in results.items():
        base = by_name["django-redis"]["median"]
        for name, found in by_name.items():
            numbers = "".join(f"{found[column]:>9.1f}" for column in ("median", "p90", "p99"))
            ratio = found["median"] / base
            mark = f"(limit {_LIMITS[operation]})" if name != "django-redis" else ""
            print(f"{operation:<14}{name:<16}{numbers}{found['max']:>10.1f}   {ratio:.2f} {mark}")


if __name__ == "__main__":
    sys.exit(main())
