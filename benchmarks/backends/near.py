"""NearCache beside Redis, LMDB and process memory: `python -m benchmarks.backends.near`.

Each on one private Redis over a socket file; then through a proxy that delays each direction, which
stands for a network. `get` reads a key that is in the copy, `get, first` one that is not. The lag is
measured from a write that RedisCache has acknowledged until the entry has left the copy. Not measured:
several machines, and a page under Gunicorn.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    Call,
    command_line,
    compare_calls,
    set_up_django,
    summaries,
    table,
    write_report,
)
from benchmarks.measuring.values import VALUE, many_calls
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until

_LIMITS = {
    "get": {"near": 1 / 15},
    "get, first": {"near": 1.5},
    "set": {"near": 1.3},
}
_FAR_LIMITS = {"get": {"near": 1 / 300}}
_MANY = 100_000


def _calls(cache: Any, fill: Callable[[dict[str, Any]], object]) -> dict[str, Call]:
    cache.set("value", VALUE, None)
    cache.set("count", 1, None)
    many = many_calls(cache)
    many["set_many 100"]()
    names: Iterator[str] = iter(())

    def first() -> None:
        nonlocal names
        name = next(names, None)
        if name is None:
            new = [f"first-{time.monotonic_ns()}-{number}" for number in range(1000)]
            fill(dict.fromkeys(new, VALUE))
            names = iter(new)
            name = next(names)
        cache.get(name)

    return {
        "get": lambda: cache.get("value"),
        "get, first": first,
        "get_many 100": many["get_many 100"],
        "set": lambda: cache.set("other", VALUE),
        "incr": lambda: cache.incr("count"),
    }


def _lags_ms(writer: Any, near: Any, count: int) -> list[float]:
    """Return how long after a write of another machine its old value was in the copy."""
    lags = []
    for number in range(count):
        key = f"lag-{number}"
        writer.set(key, 0)
        near.get(key)
        before = near.get(key)
        writer.set(key, 1)
        began_s = time.perf_counter()
        while near.get(key) == before:
            pass
        lags.append((time.perf_counter() - began_s) * 1000)
    return lags


async def _forward(source: Path, target: Path, delay_s: float) -> None:
    loop = asyncio.get_running_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            loop.call_later(delay_s, writer.write, data)
        loop.call_later(delay_s, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(target)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_unix_server(serve, source)
    await server.serve_forever()


def _proxy(source: Path, target: Path, delay_s: float) -> None:
    asyncio.run(_forward(source, target, delay_s))


def _variants(url: str, copy: Path, prefix: str) -> dict[str, Any]:
    from django_redis.cache import RedisCache as Stock  # noqa: PLC0415 (needs the settings)

    from cacheapp.backends import NearCache, RedisCache  # noqa: PLC0415

    options = {"copy": str(copy), "size_limit": 256 * 2**20}
    return {
        "django-redis": Stock(url, {"KEY_PREFIX": f"{prefix}-stock"}),
        "redis": RedisCache(url, {"KEY_PREFIX": f"{prefix}-redis"}),
        "near": NearCache(url, {"KEY_PREFIX": f"{prefix}-near", "OPTIONS": options}),
    }


def _measure(variants: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    near = variants.get("near")
    if near is not None:
        until(lambda: near.get("any") or near.stats()["copy_hits"] > 0, "the copy to be served", 10)
    calls = {name: _calls(cache, cache.set_many) for name, cache in variants.items()}

    def times(operation: str) -> int:
        return max(1, asked.calls // 10) if "many" in operation else int(asked.calls)

    return compare_calls(calls, asked.rounds, times, within_s=0.2)


def main() -> int:
    """Measure, print, and return 0; a ratio above its limit is marked, not an error."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=300, help="per variant and round")
    parser.add_argument("--delay-ms", type=float, default=0.5, help="of the proxy, per direction")
    parser.add_argument("--lags", type=int, default=500, help="writes whose lag is measured")
    asked = parser.parse_args()
    set_up_django()
    from django.core.cache.backends.locmem import LocMemCache  # noqa: PLC0415 (needs the settings)

    from cacheapp.backends import LMDBCache  # noqa: PLC0415

    with RedisServer() as server, tempfile.TemporaryDirectory() as made:
        server.start()
        directory = Path(made)
        close_to = _variants(server.url, directory / "copy", "close")
        samples = _measure(
            {
                **close_to,
                "lmdb": LMDBCache(directory / "lmdb", {}),
                "locmem": LocMemCache("near", {"OPTIONS": {"MAX_ENTRIES": _MANY}}),
            },
            asked,
        )
        from cacheapp.backends import RedisCache  # noqa: PLC0415

        writer = RedisCache(server.url, {"KEY_PREFIX": "close-near"})
        lags = _lags_ms(writer, close_to["near"], asked.lags)
        socket = directory / "proxy.sock"
        proxy = multiprocessing.get_context("spawn").Process(
            target=_proxy, args=(socket, server.socket, asked.delay_ms / 1000), daemon=True
        )
        proxy.start()
        until(socket.exists, "the proxy", 30)
        try:
            far = _variants(f"unix://{socket}?db=0", directory / "far", "far")
            far_samples = _measure(far, asked)
        finally:
            for cache in itertools.chain([close_to["near"]], [far["near"]]):
                cache._store.close()  # noqa: SLF001 (ends the listener)
            proxy.kill()
            proxy.join()
    results, far_results = summaries(samples), summaries(far_samples)
    print(*table("microseconds", results, "redis", _LIMITS), sep="\n")
    print(f"\nthrough a proxy with {2 * asked.delay_ms:g} ms per round trip")
    print(*table("microseconds", far_results, "django-redis", _FAR_LIMITS), sep="\n")
    lag_results = summaries({"lag of an invalidation": {"near": lags}})
    print(*table("milliseconds", lag_results, "near"), sep="\n")
    figures = {
        "microseconds": results,
        "far_microseconds": far_results,
        "lag_ms": lag_results,
        "samples": {"close": samples, "far": far_samples, "lag_ms": lags},
    }
    write_report(
        asked.json, "backends.near", ["Django", "django-redis", "redis", "hiredis", "lmdb"], figures
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
