"""What the hidden code of pages uses: a cache to use, and workers that call a function."""

import multiprocessing
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.test import override_settings

from cacheapp import clock

_MOST_S = 120


def in_workers(number: int, call: Callable[..., Any], *arguments: Any, times: int = 1) -> list[Any]:
    """Call a function in processes that were forked, as Gunicorn's workers; return what it returned.

    All begin at the same moment. An error in one of them is raised here.
    """
    context = multiprocessing.get_context("fork")
    start = context.Barrier(number)
    results = context.SimpleQueue()
    workers = [
        context.Process(target=_work, args=(start, results, call, arguments, times))
        for _ in range(number)
    ]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join(_MOST_S)
    failed = [each for each in found if isinstance(each, str)]
    if failed:
        raise AssertionError(failed[0])
    return [value for values in found for value in values]


def _work(
    start: Any, results: Any, call: Callable[..., Any], arguments: tuple[Any, ...], times: int
) -> None:
    try:
        start.wait(_MOST_S)
        results.put([call(*arguments) for _ in range(times)])
    except BaseException as exc:
        results.put(repr(exc))
        raise


def use_locmem() -> None:
    """Make `default` the cache that Django has without settings."""
    _use({"BACKEND": "django.core.cache.backends.locmem.LocMemCache"})


def use_lmdb() -> None:
    """Make `default` an LMDBCache again."""
    place = settings.BASE_DIR / "cache"
    _use({"BACKEND": "cacheapp.backends.LMDBCache", "LOCATION": place, "KEY_PREFIX": "mysite"})


def _use(entry: dict[str, Any]) -> None:
    override_settings(CACHES={"default": entry}).enable()


def stop_the_clock() -> None:
    """Stay in the middle of a minute, in this process and its workers."""
    clock.wall_s = lambda: 1_800_000_030.0
