"""`make run`: migrate, find a Redis, serve with Gunicorn; Ctrl-C stops all of it."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from cacheapp.processes.servers import RedisServer, ServerFailed, dies_with_us
from cacheapp.processes.stopping import Stopped, stopping

ROOT = Path(__file__).resolve().parent.parent
_HOST_PORT = re.compile(r"(?P<host>[^:/\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")


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


def _listen(bind: str) -> socket.socket | None:
    """Return a socket listening at `host:port`; `None` for addresses that only Gunicorn reads.

    Opened here, a port that is taken is found before anything is started, port 0 has become a real
    one before it is printed, and requests wait in its queue from then on.
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
    """Name a Redis in `env` where none is named yet and one can be had."""
    if not env.get("REDIS_URL"):
        env.pop("REDIS_URL", None)
        if url := _private_redis(stack):
            env["REDIS_URL"] = url


def _start_gunicorn(
    stack: contextlib.ExitStack, env: dict[str, str], listener: socket.socket | None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
    inherited = [listener.fileno()] if listener else []
    for number in inherited:
        command += ["--bind", f"fd://{number}"]
    gunicorn = subprocess.Popen(  # noqa: S603 (the command is ours)
        dies_with_us(command),
        cwd=ROOT,
        env=env,
        pass_fds=inherited,
        start_new_session=True,  # the terminal's Ctrl-C comes to us alone
    )
    stack.callback(gunicorn.wait)
    stack.callback(gunicorn.terminate)  # does nothing to a process that has ended
    return gunicorn


def serve(stack: contextlib.ExitStack) -> int:
    """Run Gunicorn until it ends or we are told to stop; return its exit status."""
    env = {"DEBUG": "1", "DEMO": "1", **os.environ}
    bind = env.get("BIND", "127.0.0.1:8000")
    try:
        listener = _listen(bind)
    except OSError as exc:
        _say(f"Cannot serve at {bind}: {exc}. Name another address: BIND=127.0.0.1:8001 make run")
        return 1
    if listener:
        stack.enter_context(listener)
    _redis_url(stack, env)
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=ROOT, env=env, check=True)  # noqa: S603 (the command is ours)
    gunicorn = _start_gunicorn(stack, env, listener)
    shown = _address(listener) if listener else bind
    if listener:
        listener.close()  # it is Gunicorn's now: when Gunicorn goes, clients are told
    _say(f"Serving: {shown} with {env.get('WEB_CONCURRENCY', '4')} workers; Ctrl-C stops")
    return gunicorn.wait()


def main() -> int:
    """Serve, and leave nothing behind."""
    try:
        with stopping(), contextlib.ExitStack() as stack:
            return serve(stack)
    except Stopped:
        return 0
    except subprocess.CalledProcessError as exc:
        return exc.returncode


if __name__ == "__main__":
    sys.exit(main())
