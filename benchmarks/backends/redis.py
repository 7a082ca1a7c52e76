"""RedisCache beside django-redis's own, call by call: `python -m benchmarks.backends.redis`.

Both use pickle, on one private Redis over a socket file; ours signs. Variants take turns, a slice
of calls each, so that what else the machine does meets both. Not measured: a network between
(it would hide the difference), several threads, values beyond the size given.
"""

import sys

from benchmarks.measuring import (
    command_line,
    compare_calls,
    read_amount,
    set_up_django,
    summaries,
    table,
    write_report,
)
from benchmarks.measuring.values import usual_calls
from cacheapp.processes.servers import RedisServer

_STOCK = "django-redis"
_OURS = "ours, signed"
_LIMITS = {"get": 0.8, "set": 0.8, "incr": 0.8, "get_many 100": 1.2, "set_many 100": 1.2}


def main() -> int:
    """Measure, print, and return 0; a ratio above its limit is marked, not an error."""
    asked = read_amount(command_line(__doc__), calls=300, quick_calls=60)
    set_up_django()
    from django_redis.cache import RedisCache as Stock  # noqa: PLC0415 (needs the settings)

    from cacheapp.backends import RedisCache  # noqa: PLC0415

    def times(operation: str) -> int:
        return max(1, asked.calls // 10) if "many" in operation else int(asked.calls)

    with RedisServer() as server:
        server.start()
        variants = {
            _STOCK: usual_calls(Stock(server.url, {"KEY_PREFIX": "stock"})),
            _OURS: usual_calls(RedisCache(server.url, {"KEY_PREFIX": "ours"})),
        }
        samples = compare_calls(variants, asked.rounds, times)
    results = summaries(samples)
    limits = {operation: {_OURS: limit} for operation, limit in _LIMITS.items()}
    print(*table("microseconds", results, _STOCK, limits), sep="\n")
    figures = {"microseconds": results, "samples": samples}
    write_report(
        asked.json, "backends.redis", ["Django", "django-redis", "redis", "hiredis"], figures
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
