"""Run the demo (`make run`): migrate, find or start a Redis, serve with Gunicorn until Ctrl-C."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from cacheapp.processes.supervisor import (
    start_child,
    start_redis,
    start_redis_cluster,
    until_stopped,
)

ROOT = Path(__file__).resolve().parent.parent
_HOST_PORT = re.compile(r"(?P<host>[^:/\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


def _private_redis(stack: contextlib.ExitStack, *, cluster: bool) -> str | None:
    """Start a private Redis or cluster and return its URL; if there is none, print the reason."""
    try:
        if cluster:
            found = start_redis_cluster(stack)
            nodes = found.addresses
            _print(f"Redis:   private cluster, three primaries and three replicas, {nodes}")
            return found.url
        server = start_redis(stack)
    except RuntimeError as exc:
        _print(f"Redis:   not available, the alias `redis` will be down ({exc})")
        return None
    _print(f"Redis:   private server, process {server.pid}, REDIS_URL={server.url}")
    return server.url


def _listen(bind: str) -> socket.socket | None:
    """Return a socket listening at `host:port`; `None` for addresses that only Gunicorn understands.

    Opening it here finds a port in use before anything is started, turns port 0 into the number to
    print, and queues requests that arrive early.
    """
    found = _HOST_PORT.fullmatch(bind)
    if not found:
        return None
    host = found["host"].strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(found["port"])), family=family, backlog=2048)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _redis_url(stack: contextlib.ExitStack, env: dict[str, str]) -> None:
    """Set `REDIS_URL` in `env` to a private Redis, unless it is set or there is none."""
    if not env.get("REDIS_URL"):
        env.pop("REDIS_URL", None)
        if url := _private_redis(stack, cluster=env.get("REDIS_CLUSTER") == "1"):
            env["REDIS_URL"] = url


def _start_gunicorn(
    stack: contextlib.ExitStack, env: dict[str, str], listener: socket.socket | None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
    inherited = [listener.fileno()] if listener else []
    for number in inherited:
        command += ["--bind", f"fd://{number}"]
    return start_child(stack, command, cwd=ROOT, env=env, pass_fds=inherited)


def serve(stack: contextlib.ExitStack) -> int:
    """Run Gunicorn until it ends; return its exit status."""
    env = {"DEBUG": "1", "DEMO": "1", **os.environ}
    bind = env.get("BIND", "127.0.0.1:8000")
    try:
        listener = _listen(bind)
    except OSError as exc:
        _print(f"Cannot serve at {bind}: {exc}. Use another address: BIND=127.0.0.1:8001 make run")
        return 1
    if listener:
        stack.enter_context(listener)
    _redis_url(stack, env)
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=ROOT, env=env, check=True)  # noqa: S603 (the command is ours)
    gunicorn = _start_gunicorn(stack, env, listener)
    shown = _address(listener) if listener else bind
    if listener:
        listener.close()  # only Gunicorn holds it now, so clients are refused once Gunicorn ends
    _print(f"Serving: {shown} with {env.get('WEB_CONCURRENCY', '4')} workers; Ctrl-C stops")
    return gunicorn.wait()


def main() -> int:
    """Serve; stop every process that was started, however the program ends."""
    status = 0
    try:
        with until_stopped() as stack:
            status = serve(stack)
    except subprocess.CalledProcessError as exc:
        return exc.returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
