"""`make run`: migrate, find a Redis, serve with Gunicorn; Ctrl-C stops all of it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from cacheapp.lab.servers import RedisServer, ServerFailed

ROOT = Path(__file__).resolve().parent.parent


class _Stopped(Exception):
    """A signal asked us to stop."""


def _stop(number: int, _frame: object) -> None:
    # Once is enough: a second Ctrl-C must not interrupt the cleaning up.
    for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(again, signal.SIG_IGN)
    raise _Stopped(signal.Signals(number).name)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


def _private_redis(stack: contextlib.ExitStack) -> str | None:
    """Start a Redis that ends with us; return its URL, or say why there is none."""
    try:
        server = stack.enter_context(RedisServer()).start()
    except ServerFailed as exc:
        _say(f"Redis:   none, so the alias `redis` will say that it is down ({exc})")
        return None
    _say(f"Redis:   a private one, process {server.pid}")
    return server.url


def serve(stack: contextlib.ExitStack) -> int:
    """Run Gunicorn until it ends or we are told to stop; return its exit status."""
    env = {"DEBUG": "1", "DEMO": "1", **os.environ}
    if not env.get("REDIS_URL"):
        env.pop("REDIS_URL", None)
        if url := _private_redis(stack):
            env["REDIS_URL"] = url
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=ROOT, env=env, check=True
    )
    bind = env.get("BIND", "127.0.0.1:8000")
    _say(f"Serving: http://{bind} with {env.get('WEB_CONCURRENCY', '4')} workers; Ctrl-C stops")
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"],
        cwd=ROOT,
        env=env,
        start_new_session=True,  # the terminal's Ctrl-C comes to us alone
    ) as gunicorn:
        try:
            return gunicorn.wait()
        except _Stopped:
            gunicorn.terminate()
            gunicorn.wait()
            return 0


def main() -> int:
    """Serve, and leave nothing behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with contextlib.ExitStack() as stack:
        try:
            return serve(stack)
        except _Stopped:
            return 0
        except subprocess.CalledProcessError as exc:
            return exc.returncode


if __name__ == "__main__":
    sys.exit(main())
