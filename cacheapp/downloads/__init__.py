"""Threaded downloads that any worker can show, cancel and resume.

Downloads start with the first request that a server handles, and release their jobs when the
process exits. `start_downloads` and `release_downloads` do the same in the hooks of a server. The
packages, from the top: `runners` run jobs, `jobs` keeps them in the database, `engine` transfers
the files of one job, `sources` reads orders and listings, `storage` writes to disk, `http` makes
requests; `plan` and `states` are pure.
"""

import logging
import os
import sys
from typing import Any

logger = logging.getLogger(__name__)

_THREADS_END_S = 1.0
_DATABASE_MS = 1000


def start_downloads(*, forced: bool = False) -> None:
    """Start this process's coordinator; call it in each worker, after the fork.

    It does nothing unless `cacheapp.downloads` is installed, nor if Celery runs the jobs, unless
    `forced`; with Django's Tasks framework, the worker only watches over the tasks. For Gunicorn's `post_worker_init` hook: it returns quickly
    and never raises. Without it, a process takes part from its first request on.
    """
    from django.apps import apps  # noqa: PLC0415 (settings may not exist on import)

    from cacheapp.conf import conf  # noqa: PLC0415 (the same)

    try:
        if not apps.is_installed("cacheapp.downloads"):
            return
        if conf().download_root is not None and (forced or conf().download_runner == "worker"):
            from cacheapp.downloads.runners.coordinator import coordinator  # noqa: PLC0415 (an extra)

            coordinator().wake()
        elif conf().download_root is not None and conf().download_runner == "tasks":
            from cacheapp.downloads.runners.task_supervisor import start_supervisor  # noqa: PLC0415

            start_supervisor()
    except Exception:
        logger.exception("worker %d: downloads not started", os.getpid())


def start_at_first_request() -> None:
    """Start downloads with the first request that a server handles in this process."""
    from django.core.signals import request_started  # noqa: PLC0415 (as above)

    request_started.connect(_start_once, dispatch_uid=__name__)


def _start_once(sender: type, **_: Any) -> None:
    from django.core.handlers.asgi import ASGIHandler  # noqa: PLC0415 (as above)
    from django.core.handlers.wsgi import WSGIHandler  # noqa: PLC0415 (as above)
    from django.core.signals import request_started  # noqa: PLC0415 (as above)

    if issubclass(sender, WSGIHandler | ASGIHandler):  # not a client of tests
        request_started.disconnect(dispatch_uid=__name__)
        start_downloads()


def release_downloads(pid: int) -> None:
    """Release the jobs of this worker, `pid`, before its threads end with it.

    For Gunicorn's `worker_exit` hook: it takes about two seconds at most and never raises. Other
    processes adopt the jobs at once and resume from the bytes on disk. If the database is locked, they
    adopt the jobs later, when the heartbeat is missing.
    """
    from django.apps import apps  # noqa: PLC0415 (Gunicorn's master may call this without Django)

    if pid != os.getpid() or not apps.ready:
        return
    try:
        _release()
    except Exception:
        logger.exception("worker %d: downloads not released", pid)


def _release() -> None:
    from django.db import connection  # noqa: PLC0415 (as above)

    module = sys.modules.get("cacheapp.downloads.runners.coordinator")
    running = None if module is None else module.existing_coordinator()
    if running is None or running.is_closed():  # it never had a job, or released them
        return
    running.close(_THREADS_END_S)
    try:
        if connection.vendor == "sqlite":  # 20 s for a lock, right elsewhere, is too long here
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {_DATABASE_MS}")
        running.release()
    finally:
        connection.close()
