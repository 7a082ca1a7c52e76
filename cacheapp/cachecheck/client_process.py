"""What runs in a client process: it opens the cache and executes the orders of the check in threads.

A process ends when its pipe closes, so none outlives the check for longer than one order takes. It
ignores Ctrl-C.
"""

import asyncio
import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.cache import caches
from django.db import connections

from cacheapp.cachecheck.adapters.subject import open_subject
from cacheapp.cachecheck.session import AsyncAdapter, ClientSession, Place

Work = Callable[..., Any]


@dataclass(frozen=True)
class Setup:
    """The parameters of every client process."""

    alias: str
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from those of the project: private stores."""
    threads: int = 1
    seed: int = 0
    directory: Path = Path()
    """Of journals and events."""
    subject: str = ""
    """What to use instead of an alias of Django: `package.module:function`."""


@dataclass(frozen=True)
class Order:
    """The work of a client, and when it begins."""

    work: Work
    args: tuple[Any, ...]
    places: tuple[Place, ...]
    """One for each thread's session."""
    start_ns: int
    alias: str
    use_async: bool = False
    """Whether to use the asynchronous methods."""


def serve(pipe: Connection, setup: Setup, number: int) -> None:
    """Execute the orders of the check until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(os.getpid())
        for order in iter(pipe.recv, None):
            pipe.send(_in_threads(setup, number, order))


def _in_threads(setup: Setup, number: int, order: Order) -> list[tuple[bool, Any]]:
    results: list[tuple[bool, Any]] = [(False, "not run")] * len(order.places)

    def run(index: int) -> None:
        try:
            results[index] = (True, _run(setup, number, index, order))
        except BaseException:  # noqa: BLE001 (the check reports it)
            results[index] = (False, traceback.format_exc())

    threads = [threading.Thread(target=run, args=(index,)) for index in range(1, len(results))]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join()
    return results


_opening = threading.Lock()
_opened: dict[str, Any] = {}
"""The subjects that this process has opened. Guarded by `_opening`."""


def _cache(setup: Setup, alias: str) -> Any:
    """Return the cache of an alias; a subject is opened once in each process, for all threads."""
    if not setup.subject:
        return caches[alias]
    with _opening:
        if setup.subject not in _opened:
            cache = open_subject(setup.subject)
            if getattr(cache, "asynchronous", False):
                cache = AsyncAdapter(cache, asyncio.Runner())
            _opened[setup.subject] = cache
        return _opened[setup.subject]


def _run(setup: Setup, number: int, index: int, order: Order) -> Any:
    face = cache = _cache(setup, order.alias)
    if order.use_async and not setup.subject:
        face = AsyncAdapter(cache, asyncio.Runner())
    process = f"p{number}" if len(order.places) == 1 else f"p{number}.{index + 1}"
    session = ClientSession(face, process, order.places[index], setup.seed, setup.directory)
    try:
        session.until_ns(order.start_ns)
        return order.work(session, *order.args)
    finally:
        session.close()
        if not setup.subject:
            if order.use_async:
                face.finish()
            caches.close_all()
            connections.close_all()


def adopt(setup: Setup) -> None:
    """Set Django up in this process, with the overridden settings, unless the subject does without."""
    has_project = bool(os.environ.get("DJANGO_SETTINGS_MODULE"))
    if setup.subject and not has_project:
        return
    if not has_project and not settings.configured:
        settings.configure(**setup.overrides)
    for name, value in setup.overrides.items():
        setattr(settings, name, value)
    django.setup()


def spawned(pipe: Connection, setup: Setup, number: int) -> None:
    """Run a client in a process that was started afresh."""
    adopt(setup)
    serve(pipe, setup, number)


def parent_of_forks(pipes: Sequence[Connection], setup: Setup, numbers: Sequence[int]) -> None:
    """Use the cache, then fork the clients, which inherit all that it has open."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt(setup)
    with contextlib.suppress(Exception):  # the clients report the error
        _cache(setup, setup.alias).get("cachecheck-warm")
    for pipe, number in zip(pipes, numbers, strict=True):
        if os.fork() == 0:
            for other in pipes:
                if other is not pipe:
                    other.close()
            try:
                serve(pipe, setup, number)
            finally:
                os._exit(0)  # in any case: no cleanup of the parent may run here
    for pipe in pipes:
        pipe.close()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
