"""What one worker does when the roll is called: it looks, writes, counts or clears, for itself.

Only the demo's keys are touched, through `DemoCache`. The page's own begin with `_`, which no key
of the HTTP API does: nobody changes one while all workers are being asked about it.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.signals import request_started

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache
from cacheapp.demo.namespace import DemoCache
from cacheapp.demo.worker_rpc import Attendance, Question
from cacheapp.errors import CacheappError, OutcomeUnknown

KEPT_S = 600
"""What the page writes goes by itself after this time."""


class _Duty:
    """Whether this process attends, and how many requests it began. `_lock` guards all of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attendance: Attendance | None = None
        self._requests = 0
        os.register_at_fork(after_in_child=self._after_fork)

    def attend(self) -> None:
        with self._lock:
            if self._attendance is not None and not self._attendance.can_be_found:
                self._attendance.close()
                self._attendance = None
            if self._attendance is None:
                self._attendance = Attendance(answer)
                request_started.connect(self._count, dispatch_uid="cacheapp.witness")

    def leave(self) -> None:
        with self._lock:
            if self._attendance is not None:
                self._attendance.close()
                self._attendance = None

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
        if self._attendance is not None:
            self._attendance.leave_to_parent()
            self._attendance = None


_duty = _Duty()
attend = _duty.attend
"""Have this worker answer when the roll is called: in Gunicorn's `post_worker_init`, or at the
first page that it serves. Raises `StoreUnavailable` where `STATE_DIR` is not ours alone."""
leave = _duty.leave
"""Stop answering."""


def answer(question: Question) -> dict[str, Any]:
    """Do what is asked; an error of the store is an answer, with what may be concluded."""
    try:
        return _DEEDS[question["do"]](question)
    except OutcomeUnknown as exc:
        return {"error": str(exc), "unknown": True}
    except CacheappError as exc:
        return {"error": str(exc), "unknown": False}


def _present(_question: Question) -> dict[str, Any]:
    return {"requests": _duty.requests, "uptime_s": clock.uptime_s()}


def _look(question: Question) -> dict[str, Any]:
    cache = DemoCache(question["alias"])
    return {"values": {key: cache.get(key)[0] for key in question["keys"]}}


def _write(question: Question) -> dict[str, Any]:
    DemoCache(question["alias"]).set(question["key"], question["value"], KEPT_S)
    return {}


def _count_up(question: Question) -> dict[str, Any]:
    """Increment as Django documents it: add 0 where the key is missing, then `incr`."""
    cache, key = DemoCache(question["alias"]), question["key"]
    deadline_s = clock.monotonic_s() + question["within_s"]
    told: list[int] = []
    unknown = 0
    error = ""
    for _ in range(question["times"]):
        if clock.monotonic_s() > deadline_s:
            error = error or "the store was too slow for all increments"
            break
        try:
            cache.add(key, 0, KEPT_S)
            told.append(cache.incr(key, 1))
        except OutcomeUnknown as exc:
            unknown, error = unknown + 1, str(exc)
        except (CacheappError, ValueError, TypeError) as exc:
            error = str(exc)
    return {"told": told, "unknown": unknown, **({"why": error} if error else {})}


def _clear(question: Question) -> dict[str, Any]:
    cache = DemoCache(question["alias"])
    with contextlib.suppress(CacheappError):  # one that cannot list its keys can delete by name
        return {"removed": cache.clear()}
    return {"removed": sum(cache.delete(key) for key in question["keys"])}


def _stats(_question: Question) -> dict[str, Any]:
    found = {alias: caches[alias] for alias in settings.CACHES}
    return {
        "counts": {
            alias: cache.own_stats()
            for alias, cache in found.items()
            if isinstance(cache, SharedCache)
        }
    }


_DEEDS: dict[str, Callable[[Question], dict[str, Any]]] = {
    "present": _present,
    "look": _look,
    "write": _write,
    "count": _count_up,
    "clear": _clear,
    "stats": _stats,
}
