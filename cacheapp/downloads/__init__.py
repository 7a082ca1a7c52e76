"""Threaded downloads that any worker can watch and cancel.

`order` reads what is wanted, `ledger` writes it down, `host` runs it with `engine` and `transfer`;
`states`, `names`, `guards` and `order` are pure.
"""

import logging
import os

logger = logging.getLogger(__name__)

_THREADS_END_S = 1.0
_DATABASE_MS = 1000
_TRIES = 3


def hand_over(pid: int) -> None:
    """Give up the jobs of this worker, `pid`, whose threads are about to die with it.

    For Gunicorn's `worker_exit` hook: quick (about two seconds at most), and it never raises. What
    it cannot write (a locked database) the heartbeat shows later. Its jobs are failed at once,
    with the files that are whole counted, and partial files are removed.
    """
    from django.apps import apps  # noqa: PLC0415 (Gunicorn's master may call before Django is there)

    if pid != os.getpid() or not apps.ready:
        return
    try:
        _give_up(pid)
    except Exception:
        logger.exception("worker %d: its downloads were not handed over", pid)


def _give_up(pid: int) -> None:
    from django.db import connection  # noqa: PLC0415 (as above)

    from cacheapp.downloads import ledger  # noqa: PLC0415
    from cacheapp.downloads.host import existing_host  # noqa: PLC0415

    host = existing_host()
    if host is None:  # it never had a job
        return
    reason = f"its worker {pid} ended"
    host.close(reason, _THREADS_END_S)
    try:
        if connection.vendor == "sqlite":  # elsewhere than here, waiting 20 s for a lock is right
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {_DATABASE_MS}")
        # Again, because the coordinator's last heartbeat may come in between reading and writing.
        for _ in range(_TRIES):
            left = [job for job in ledger.owned(host.owner) if not ledger.end_early(job, reason)]
            if not left:
                break
    finally:
        connection.close()
