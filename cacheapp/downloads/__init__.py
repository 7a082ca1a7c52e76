"""Threaded downloads that any worker can detector, cancel and go on with.

`order` reads what is wanted, `ledger` writes it down, `host` runs it with `engine` and `transfer`,
`adopting` and `fencing` see to it that a job outlives its worker; `states`, `names`, `guards` and
`order` are pure.
"""

import logging
import os

logger = logging.getLogger(__name__)

_THREADS_END_S = 1.0
_DATABASE_MS = 1000


def start_downloads(*, forced: bool = False) -> None:
    """Look after downloads in this process from now on; for a worker, after its fork.

    Not where that is Celery's to do, unless `forced`.

    For Gunicorn's `post_worker_init` hook: quick, and it never raises. Without it, a process takes
    part from its first job on. A process forked later has to call it itself.
    """
    from cacheapp.conf import conf  # noqa: PLC0415 (settings may not be there on import)
    from cacheapp.downloads.runners.coordinator import coordinator  # noqa: PLC0415

    try:
        if conf().download_root is not None and (forced or conf().download_runner == "worker"):
            coordinator().wake()
    except Exception:
        logger.exception("worker %d: no downloads", os.getpid())


def release_downloads(pid: int) -> None:
    """Release the jobs of this worker, `pid`, whose threads are about to die with it.

    For Gunicorn's `worker_exit` hook: quick (about two seconds at most), and it never raises. Others
    adopt the jobs at once, and go on from the bytes on disk. What it cannot write (a locked
    database) the missing heartbeat shows later.
    """
    from django.apps import apps  # noqa: PLC0415 (Gunicorn's master may call before Django is there)

    if pid != os.getpid() or not apps.ready:
        return
    try:
        _release()
    except Exception:
        logger.exception("worker %d: its downloads were not released", pid)


def _release() -> None:
    from django.db import connection  # noqa: PLC0415 (as above)

    from cacheapp.downloads.runners.coordinator import existing_coordinator  # noqa: PLC0415

    running = existing_coordinator()
    if running is None:  # it never had a job
        return
    running.close(_THREADS_END_S)
    try:
        if connection.vendor == "sqlite":  # elsewhere than here, waiting 20 s for a lock is right
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {_DATABASE_MS}")
        running.release()
    finally:
        connection.close()
