"""RedisCache beside django-redis's own, call by call: `python -m benchmarks.backends.redis`.

Both use pickle, on one private Redis over a socket file; ours signs. Variants take turns, a slice
of calls each, so that what else the machine does meets both. Not measured: a network between
(it would hide the difference), several threads, values beyond the size given.
"""

import sys
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
from benchmarks.measuring.values import MANY, VALUE, many_calls
from cacheapp.processes.servers import RedisServer

_STOCK = "django-redis"
_OURS = "ours, signed"
_LIMITS = {"get": 0.8, "set": 0.8, "incr": 0.8, "get_many 100": 1.2, "set_many 100": 1.2}


def _calls(cache: Any) -> dict[str, Call]:
    cache.set_many({**MANY, "value": VALUE, "count": 1})
    return {
        "get": lambda: cache.get("value"),
        "set": lambda: cache.set("value", VALUE),
        "incr": lambda: cache.incr("count"),
        **many_calls(cache),
    }


def main() -> int:
    """Measure, print, and return 0; a ratio above its limit is marked, not an error."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=300, help="per variant and round")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(rounds=10, calls=60)
    asked = parser.parse_args()
    set_up_django()
    from django_redis.cache import RedisCache as Stock  # noqa: PLC0415 (needs the settings)

    from cacheapp.backends import RedisCache  # noqa: PLC0415

    def times(operation: str) -> int:
        return max(1, asked.calls // 10) if "many" in operation else int(asked.calls)

    with RedisServer() as server:
        server.start()
        variants = {
            _STOCK: _calls(Stock(server.url, {"KEY_PREFIX": "stock"})),
            _OURS: _calls(RedisCache(server.url, {"KEY_PREFIX": "ours"})),
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
