"""Import these hooks in `gunicorn.conf.py` to run downloads and the pages' worker agent in each worker.

    from cacheapp.gunicorn_hooks import post_worker_init, worker_exit

They require "cacheapp" in INSTALLED_APPS, and for downloads "cacheapp.downloads" too. Gunicorn's
master process imports this module before Django is set up, so nothing of Django is imported at module
level. The caches need no hooks.
"""

import contextlib
import os
import sys
from typing import Any


def post_worker_init(worker: Any) -> None:
    """Start the coordinator of downloads and the worker agent, after the fork.

    Event streams then end as soon as the worker begins to stop; otherwise, the worker would wait for
    them. Returns quickly. If `STATE_DIR` is not private, the worker agent does not start, and the
    front page reports the reason. A directory of another user than this worker's is logged.
    """
    from django.apps import apps  # noqa: PLC0415 (the master has no settings)

    from cacheapp.checks.gunicorn import log_foreign_directories  # noqa: PLC0415 (the same)
    from cacheapp.demo import stats_ring, worker_agent  # noqa: PLC0415 (the same)
    from cacheapp.downloads import start_downloads  # noqa: PLC0415 (the same)
    from cacheapp.errors import StoreUnavailable  # noqa: PLC0415 (the same)
    from cacheapp.views.streams import end_streams_when  # noqa: PLC0415 (the same)

    log_foreign_directories()
    end_streams_when(lambda: not worker.alive)
    if apps.is_installed("cacheapp.downloads"):
        start_downloads()
    with contextlib.suppress(StoreUnavailable):
        worker_agent.start()
        stats_ring.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Release this worker's jobs, so that other workers adopt them at once, and stop its agent.

    Takes about two seconds at most.
    """
    del server, worker
    from cacheapp.downloads import release_downloads  # noqa: PLC0415 (the master has no settings)

    release_downloads(os.getpid())
    # A worker that failed to boot never loaded the agent.
    if (agent := sys.modules.get("cacheapp.demo.worker_agent")) is not None:
        agent.stop()
    if (ring := sys.modules.get("cacheapp.demo.stats_ring")) is not None:
        ring.stop()
