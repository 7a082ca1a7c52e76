"""What signing costs: get and set of each backend, signed and not, interleaved in one process.

    python -m benchmarks.backends.signing

The smallest of many rounds counts, because other programs only ever add time. The second table is
the MAC alone: the one that the codec uses, and HMAC-SHA256.
"""

import functools
import hashlib
import hmac
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import django
from django.conf import settings

from cacheapp.processes.servers import RedisServer

SIZES = (100, 1024, 65536)
ROUNDS = 60
STORES = {"lmdb": "LMDBCache", "disk": "DiskCache", "redis": "RedisCache"}


def _entries(directory: Path, redis_url: str) -> dict[str, dict[str, object]]:
    return {
        f"{store}-{signed}": {
            "BACKEND": f"cacheapp.backends.{backend}",
            "LOCATION": redis_url if store == "redis" else directory / f"{store}-{signed}",
            "KEY_PREFIX": f"signed-{signed}",
            "OPTIONS": {"signed": signed},
        }
        for store, backend in STORES.items()
        for signed in (False, True)
    }


def _us(call: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times * 1e6


def _least(calls: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    rounds = [{name: _us(call, times) for name, call in calls.items()} for _ in range(ROUNDS)]
    return {name: min(each[name] for each in rounds) for name in calls}


def _caches(names: list[str]) -> None:
    from django.core.cache import caches  # noqa: PLC0415 (after the settings)

    for size in SIZES:
        value = os.urandom(size)
        sets = {name: functools.partial(caches[name].set, "key", value) for name in names}
        gets = {name: functools.partial(caches[name].get, "key") for name in names}
        set_us, get_us = _least(sets, 20), _least(gets, 100)
        for name in names:
            print(f"{size:>6} B  {name:<12} get {get_us[name]:7.2f}  set {set_us[name]:7.2f} us")


def _macs() -> None:
    key = os.urandom(32)
    blake2b = hashlib.blake2b(key=key, digest_size=16)
    sha256 = hmac.new(key, digestmod="sha256")
    for size in SIZES:
        value = os.urandom(size)

        def blake2b_of(value: bytes = value) -> bytes:
            digest = blake2b.copy()
            digest.update(value)
            return digest.digest()

        def sha256_of(value: bytes = value) -> bytes:
            digest = sha256.copy()
            digest.update(value)
            return digest.digest()

        found = _least({"BLAKE2b": blake2b_of, "HMAC-SHA256": sha256_of}, 200)
        print(f"{size:>6} B  " + "  ".join(f"{name} {us:.2f} us" for name, us in found.items()))


def main() -> None:
    """Measure, and print both tables."""
    with tempfile.TemporaryDirectory() as directory, RedisServer() as server:
        entries = _entries(Path(directory), server.start().url)
        settings.configure(
            CACHES={**entries, "default": entries["lmdb-False"]},
            SECRET_KEY="of this benchmark only " + "x" * 40,
            CACHEAPP={"STATE_DIR": Path(directory) / "state"},
            USE_TZ=True,
        )
        django.setup()
        _caches(list(entries))
    _macs()


if __name__ == "__main__":
    main()
