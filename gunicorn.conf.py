"""Gunicorn's configuration for this project: each value with its reason, some from the environment."""

import gc
import os
from typing import Any

import environs
from marshmallow import validate

from cacheapp import body_deadline, gunicorn_hooks

env = environs.Env(eager=False)

wsgi_app = "project.wsgi:application"

# 127.0.0.1: not reachable from other machines unless BIND says otherwise. Tests bind "fd://N".
bind = env.str("BIND", "127.0.0.1:8000")

# Several processes, because this project is about sharing between them; threads for waiting requests.
workers = env.int("WEB_CONCURRENCY", 4, validate=validate.Range(min=1))
threads = env.int("WEB_THREADS", 8, validate=validate.Range(min=1))
worker_class = (
    "gthread"  # its heartbeat does not depend on requests: a slow request does not kill the worker
)

# With preload, the master imports the project once and forks. Memory is shared until written, but
# a code change requires a full restart instead of a HUP.
preload_app = env.bool("PRELOAD", False)

# A client that sends its body slowly occupies a thread for so many seconds at the most.
pre_request = body_deadline.within(
    env.float("BODY_TIMEOUT", 30.0, validate=validate.Range(min=0, min_inclusive=False))
)
post_request = body_deadline.end

timeout = 30  # seconds without a worker's heartbeat before it is killed
graceful_timeout = env.int("GRACEFUL_TIMEOUT", 10, validate=validate.Range(min=1))
keepalive = 5  # seconds; `manage.py demo` keeps one connection open to each worker

# Restarting workers limits the damage of memory leaks. The jitter spreads the restarts.
max_requests = env.int("MAX_REQUESTS", 10_000, validate=validate.Range(min=0))
max_requests_jitter = max_requests // 10

# The heartbeat file is kept in memory: on a stalled disk, healthy workers would be killed.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (not a file name)

# The control socket in the home directory would be shared by all servers of this user.
control_socket_disable = True

# Only a proxy that is configured may set these: otherwise any program on this machine could choose the
# scheme of its request. An empty list would not stop a peer on a Unix socket.
if not env.bool("BEHIND_TLS_PROXY", False):
    forwarded_allow_ips = ""
    secure_scheme_headers: dict[str, str] = {}
    forwarder_headers = ""

accesslog = env.str(
    "ACCESS_LOG", None
)  # "-" for stdout; off by default, because it writes one line per request
errorlog = "-"  # stderr

env.seal()


def post_worker_init(worker: Any) -> None:
    """Start cacheapp's part of the worker; then exempt all that was imported from collections.

    A full collection would examine it again and again, and delay every request of the worker by 40 ms
    each time.
    """
    gunicorn_hooks.post_worker_init(worker)
    gc.collect()
    gc.freeze()


worker_exit = gunicorn_hooks.worker_exit
