"""Reads the `LOCATION` of a cluster: the nodes that are asked first for all others."""

import re
from collections.abc import Mapping
from typing import Any

from cacheapp.backends.redis.options import read_location, redacted

_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_EXPECTED = (
    "expected 'redis+cluster://host:port,host:port' ('rediss+cluster://' for TLS), or a list of "
    "'redis://host:port' with OPTIONS['cluster'] = True"
)
_REFUSED: Mapping[str, str] = {
    "SENTINELS": "a cluster promotes its replicas itself",
    "SENTINEL_KWARGS": "a cluster promotes its replicas itself",
    "CLIENT_CLASS": "django-redis has no client of a cluster",
    "CONNECTION_FACTORY": "the nodes of a cluster are found by CLUSTER SLOTS",
    "REDIS_CLIENT_CLASS": "get_client() returns a redis.RedisCluster",
    "REDIS_CLIENT_KWARGS": "get_client() takes OPTIONS['CONNECTION_POOL_KWARGS']",
    "reads_django_redis": "django-redis has no client of a cluster, and writes other keys",
}


def is_cluster(location: Any, options: Any) -> bool:
    """Return True if the entry of CACHES means a cluster, be it valid or not."""
    if isinstance(options, Mapping) and options.get("cluster") is True:
        return True
    return any(
        isinstance(url, str) and url.partition("://")[0] in _SCHEMES for url in _parts(location)
    )


def _parts(location: Any) -> list[Any]:
    if isinstance(location, str):
        return re.split(r"[,;](?=[a-z+]+://)", location)
    return list(location) if isinstance(location, list | tuple) else [location]


def read_nodes(location: Any) -> tuple[str, ...]:
    """Return the URL of each node that LOCATION names; `ValueError` has no password in its message."""
    nodes = [node for part in _parts(location) for node in _nodes_of(part)]
    if len({node.partition("://")[0] for node in nodes}) != 1:
        raise ValueError(f"LOCATION names no node, or nodes with and without TLS; {_EXPECTED}")
    return tuple(dict.fromkeys(nodes))


def _nodes_of(part: Any) -> list[str]:
    if not isinstance(part, str):
        raise ValueError(f"LOCATION contains a {type(part).__name__}; {_EXPECTED}")
    scheme, _, rest = part.partition("://")
    scheme = _SCHEMES.get(scheme, scheme)
    if scheme not in {"redis", "rediss"}:
        raise ValueError(f"LOCATION is {redacted(part)!r}; {_EXPECTED}")
    found = re.fullmatch(
        r"(?P<user>[^/?#]*@)?(?P<hosts>[^/?#]+)(?P<path>/[^?]*)?(?P<query>\?.*)?", rest
    )
    if found is None or "" in found["hosts"].split(","):
        raise ValueError(f"LOCATION is {redacted(part)!r}; {_EXPECTED}")
    if (found["path"] or "/") not in {"/", "/0"} or "db=" in (found["query"] or ""):
        raise ValueError(
            f"LOCATION is {redacted(part)!r}; expected no database: a cluster has only database 0"
        )
    user, query = found["user"] or "", found["query"] or ""
    return [
        read_location(f"{scheme}://{user}{host}/0{query}") for host in found["hosts"].split(",")
    ]


def shown(nodes: tuple[str, ...]) -> str:
    """Return the nodes for messages, without passwords."""
    return ", ".join(redacted(node).partition("://")[2].removesuffix("/0") for node in nodes)


def mistakes(location: Any, params: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each mistake in an entry of CACHES that means a cluster."""
    options = params.get("OPTIONS", {})
    options = options if isinstance(options, Mapping) else {}
    found = []
    try:
        read_nodes(location)
    except ValueError as exc:
        found.append(str(exc))
    if options.get("cluster") is False:
        found.append(
            "OPTIONS['cluster'] is False; expected True, or none: LOCATION names a cluster"
        )
    found += [
        f"OPTIONS[{name!r}] does not apply to a cluster: {reason}"
        for name, reason in _REFUSED.items()
        if options.get(name)
    ]
    if "{" in str(params.get("KEY_PREFIX", "")):
        found.append(
            f"KEY_PREFIX is {params['KEY_PREFIX']!r}; expected none with '{{': it would put the keys of "
            "the alias into one slot of the cluster, or the versions of a key into several"
        )
    return found
