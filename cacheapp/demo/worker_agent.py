"""Handle RPC requests in one worker: read, write, count or clear the demo's keys.

Only the demo's keys are touched, through `DemoCache`. The keys of the page begin with `_`, which no
key of the HTTP API does, so the API cannot change one while the page reads all workers.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.signals import request_started

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache
from cacheapp.demo import stats_ring
from cacheapp.demo.namespace import DemoCache
from cacheapp.demo.worker_rpc import Request, RpcServer
from cacheapp.errors import CacheappError, OutcomeUnknown

logger = logging.getLogger(__name__)

TIMEOUT_S = 600
"""The timeout of the keys that the page writes."""


class _Agent:
    """The RPC server of this process and its count of HTTP requests. `_lock` guards both."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: RpcServer | None = None
        self._requests = 0
        os.register_at_fork(after_in_child=self._after_fork)

    def start(self) -> None:
        with self._lock:
            if self._server is not None and not self._server.is_reachable:
                self._server.close()
                self._server = None
            if self._server is None:
                try:
                    self._server = RpcServer(handle)
                except (
                    RuntimeError
                ) as exc:  # the system allows no thread now: the next call tries again
                    logger.warning("this worker does not answer others yet: %s", exc)
                    return
                request_started.connect(self._count, dispatch_uid="cacheapp.worker_agent")

    def stop(self) -> None:
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None

    @property
    def requests(self) -> int:
        with self._lock:
            return self._requests

    def _count(self, **_: Any) -> None:
        with self._lock:
            self._requests += 1

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        if self._server is not None:
            self._server.close_in_child()
            self._server = None


_agent = _Agent()
start = _agent.start
"""Start to answer other workers: in Gunicorn's `post_worker_init`, or at the first page.

Safe to call again. Raises `StoreUnavailable` if `STATE_DIR` is not private to this user."""
stop = _agent.stop
"""Stop answering."""


def handle(request: Request) -> dict[str, Any]:
    """Execute a request; an error of the store is a reply that says whether it may have happened."""
    try:
        return _HANDLERS[request["do"]](request)
    except OutcomeUnknown as exc:
        return {"error": str(exc), "unknown": True}
    except CacheappError as exc:
        return {"error": str(exc), "unknown": False}


def _present(_request: Request) -> dict[str, Any]:
    return {"requests": _agent.requests, "uptime_s": clock.uptime_s()}


def _read(request: Request) -> dict[str, Any]:
    cache = DemoCache(request["alias"])
    found = {key: cache.get(key) for key in request["keys"]}
    with contextlib.suppress(OSError, CacheappError):  # the charts then count these reads too
        for _, hit in found.values():
            stats_ring.count_own_read(request["alias"], hit=hit)
    return {"values": {key: value for key, (value, _) in found.items()}}


def _write(request: Request) -> dict[str, Any]:
    DemoCache(request["alias"]).set(request["key"], request["value"], TIMEOUT_S)
    return {}


def _count_up(request: Request) -> dict[str, Any]:
    """Increment as Django documents it: add 0 where the key is missing, then `incr`."""
    cache, key = DemoCache(request["alias"]), request["key"]
    deadline_s = clock.monotonic_s() + request["within_s"]
    sums: list[int] = []
    unknown = 0
    error = ""
    for _ in range(request["times"]):
        if clock.monotonic_s() > deadline_s:
            error = error or "the store was too slow for all increments"
            break
        try:
            cache.add(key, 0, TIMEOUT_S)
            sums.append(cache.incr(key, 1))
        except OutcomeUnknown as exc:
            unknown, error = unknown + 1, str(exc)
        except (CacheappError, ValueError, TypeError) as exc:
            error = str(exc)
    return {"sums": sums, "unknown": unknown, **({"why": error} if error else {})}


def _use(request: Request) -> dict[str, Any]:
    """Try to sign in several times where a few are allowed, and to spend a one-time token once."""
    cache, key = DemoCache(request["alias"]), request["login"]
    passed = 0
    try:
        for _ in range(request["times"]):
            cache.add(key, 0, TIMEOUT_S)
            passed += cache.incr(key, 1) <= request["limit"]
    except (ValueError, TypeError) as exc:  # a cache that keeps nothing cannot increment
        return {"error": str(exc), "unknown": False}
    return {"passed": passed, "spent": int(cache.add(request["token"], 1, TIMEOUT_S))}


def _clear(request: Request) -> dict[str, Any]:
    cache = DemoCache(request["alias"])
    with contextlib.suppress(CacheappError):  # a cache that cannot list its keys deletes by name
        return {"removed": cache.clear()}
    return {"removed": sum(cache.delete(key) for key in request["keys"])}


def _stats(_request: Request) -> dict[str, Any]:
    found = {alias: caches[alias] for alias in settings.CACHES}
    return {
        "counts": {
            alias: cache.own_stats()
            for alias, cache in found.items()
            if isinstance(cache, SharedCache)
        }
    }


_HANDLERS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "present": _present,
    "read": _read,
    "write": _write,
    "count": _count_up,
    "use": _use,
    "clear": _clear,
    "stats": _stats,
}
