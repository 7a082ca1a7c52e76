"""How Gunicorn serves this project; each value with its reason, the usual ones from the environment."""

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Any

import environs
from marshmallow import validate

env = environs.Env(eager=False)

wsgi_app = "project.wsgi:application"

# 127.0.0.1: nothing is reachable from outside until somebody says so. Tests bind "fd://N".
bind = env.str("BIND", "127.0.0.1:8000")

# Several processes are what this project is about; threads for what waits.
workers = env.int("WEB_CONCURRENCY", 4, validate=validate.Range(min=1))
threads = env.int("WEB_THREADS", 8, validate=validate.Range(min=1))
worker_class = "gthread"  # its heartbeat is apart from its requests: a slow one does not kill it

# With preload the master imports the project once and forks; memory is shared until written,
# but code changes then need a full restart instead of a HUP.
preload_app = env.bool("PRELOAD", False)

timeout = 30  # seconds without a worker's heartbeat before it is killed
graceful_timeout = env.int("GRACEFUL_TIMEOUT", 10, validate=validate.Range(min=1))
keepalive = 5  # seconds; `manage.py demo` keeps one connection open to each worker

# Leaks that nobody has found yet end with the worker. The jitter keeps the four from being
# replaced in the same moment.
max_requests = env.int("MAX_REQUESTS", 10_000, validate=validate.Range(min=0))
max_requests_jitter = max_requests // 10

# The heartbeat file in memory: on a disk that stalls, healthy workers would be killed.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (not a file name)

# A control socket in the home directory would be shared by, and outlive, every server there.
control_socket_disable = True

accesslog = env.str("ACCESS_LOG", None)  # "-" for stdout; off by default: it is a line a request
errorlog = "-"  # stderr

env.seal()


def post_worker_init(worker: Any) -> None:
    """Let cacheapp take up downloads that nobody runs, in this worker, from its start.

    Streams of events end with the worker, which would wait for them. And it can be asked what it
    sees, before its first request.
    """
    from cacheapp.demo import worker_agent  # noqa: PLC0415 (the same)
    from cacheapp.downloads import start_downloads  # noqa: PLC0415 (the master does not load Django)
    from cacheapp.errors import StoreUnavailable  # noqa: PLC0415 (the same)
    from cacheapp.views.streams import end_streams_when  # noqa: PLC0415 (the same)

    end_streams_when(lambda: not worker.alive)
    start_downloads()
    with contextlib.suppress(StoreUnavailable):  # the page that needs it says so
        worker_agent.attend()
    # What was imported stays: a full collection that looked through it again and again would hold up
    # every request of the worker for 40 ms each time.
    gc.collect()
    gc.freeze()


def worker_exit(_server: Any, _worker: Any) -> None:
    """Let cacheapp release what this worker's threads were doing: they die with it, unasked."""
    from cacheapp.downloads import release_downloads  # noqa: PLC0415 (the master does not load Django)

    release_downloads(os.getpid())
    if (witness := sys.modules.get("cacheapp.demo.worker_agent")) is not None:
        witness.leave()
