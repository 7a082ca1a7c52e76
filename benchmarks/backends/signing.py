"""What signing costs each backend: `python -m benchmarks.backends.signing`.

Variants take turns, a slice of calls each, in one process. The last two are the MAC alone: the one that
the codec uses, and HMAC-SHA256. Look at the minima: other programs only ever add time.
"""

import contextlib
import functools
import hashlib
import hmac
import os
import sys
import tempfile
from typing import Any

from benchmarks.measuring import (
    Call,
    command_line,
    compare_calls,
    set_up_django,
    summaries,
    write_report,
)
from cacheapp.processes.servers import RedisServer

_SIZES = {"100-B": 100, "1-KiB": 1024, "64-KiB": 65536}  # names of keys


def _calls(cache: Any) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for name, size in _SIZES.items():
        value = os.urandom(size)
        cache.set(name, value, None)
        calls[f"get {name}"] = functools.partial(cache.get, name)
        calls[f"set {name}"] = functools.partial(cache.set, name, value, None)
    return calls


def _mac_calls(keyed: Any) -> dict[str, Call]:
    def digest_of(value: bytes) -> Call:
        def digest() -> bytes:
            copy = keyed.copy()
            copy.update(value)
            found: bytes = copy.digest()
            return found

        return digest

    values = {name: os.urandom(size) for name, size in _SIZES.items()}
    return {f"{what} {name}": digest_of(values[name]) for what in ("get", "set") for name in _SIZES}


def main() -> int:
    """Measure, print the minima, and return 0."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=50, help="per variant and round")
    asked = parser.parse_args()
    set_up_django()
    from cacheapp.backends import DiskCache, LMDBCache, RedisCache  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        url = stack.enter_context(RedisServer()).start().url
        stores: dict[str, Any] = {"lmdb": LMDBCache, "disk": DiskCache, "redis": RedisCache}
        variants = {
            f"{name}, {'signed' if signed else 'unsigned'}": _calls(
                backend(
                    url if name == "redis" else f"{directory}/{name}-{signed}",
                    {"KEY_PREFIX": f"signed-{signed}", "OPTIONS": {"signed": signed}},
                )
            )
            for name, backend in stores.items()
            for signed in (False, True)
        }
        key = os.urandom(32)
        variants["BLAKE2b"] = _mac_calls(hashlib.blake2b(key=key, digest_size=16))
        variants["HMAC-SHA256"] = _mac_calls(hmac.new(key, digestmod="sha256"))
        samples = compare_calls(variants, asked.rounds, lambda _: int(asked.calls))
    least = {
        operation: {name: round(min(times), 2) for name, times in found.items()}
        for operation, found in samples.items()
    }
    for operation, found in least.items():
        print(operation, *(f"  {name}: {us} us" for name, us in found.items()), sep="\n")
    figures = {"least": least, "microseconds": summaries(samples), "samples": samples}
    write_report(asked.json, "backends.signing", ["Django", "lmdb", "diskcache", "redis"], figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
