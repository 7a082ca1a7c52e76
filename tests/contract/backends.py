"""The backends that the contract is held against. Adding one is a line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer

Entry = dict[str, Any]
PATIENT = {"SOCKET_TIMEOUT": 60, "SOCKET_CONNECT_TIMEOUT": 60, "pool_timeout": 60}
"""Options of RedisCache with which no busy machine counts as a failure of the server."""

BACKENDS: dict[str, Callable[[Path, RedisServer | PrivateCluster], Entry]] = {
    "cluster": lambda _directory, cluster: {
        "BACKEND": "cacheapp.backends.RedisCache",
        "LOCATION": cluster.url,
        "OPTIONS": PATIENT,
    },
    "disk": lambda directory, _redis: {
        "BACKEND": "cacheapp.backends.DiskCache",
        "LOCATION": str(directory / "cache"),
        "OPTIONS": {"database_timeout": 60},  # as above
    },
    "lmdb": lambda directory, _redis: {
        "BACKEND": "cacheapp.backends.LMDBCache",
        "LOCATION": str(directory / "cache"),
        "OPTIONS": {"size_limit": 32 * 2**20},  # reserved on the disk for every test
    },
    "near": lambda directory, redis: {
        "BACKEND": "cacheapp.backends.NearCache",
        "LOCATION": redis.url,
        "OPTIONS": {"copy": str(directory / "copy"), "size_limit": 16 * 2**20, **PATIENT},
    },
    "near_cluster": lambda directory, cluster: {
        "BACKEND": "cacheapp.backends.NearCache",
        "LOCATION": cluster.url,
        "OPTIONS": {"copy": str(directory / "copy"), "size_limit": 16 * 2**20, **PATIENT},
    },
    "redis": lambda _directory, redis: {
        "BACKEND": "cacheapp.backends.RedisCache",
        "LOCATION": redis.url,
        "OPTIONS": PATIENT,
    },
}
