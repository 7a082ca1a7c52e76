"""The private stores that the checks of other libraries use: a directory, a Redis and a Gunicorn."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cacheapp.processes.servers import GunicornServer, RedisServer
from cacheapp.processes.waiting import until

ROOT = Path(__file__).parents[3]
_STASH = "benchmarks.consistency.caches.stash_app"


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Yield the environment of the checks."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachecheck-")))
        port = _free_port()  # some libraries cannot use a Unix socket
        stack.enter_context(RedisServer(["--port", str(port), "--bind", "127.0.0.1"])).start()
        (directory / "gunicorn.conf.py").write_text(
            f'dirty_apps = ["{_STASH}:Anything"]\ndirty_workers = 1\nworkers = 1\n'
        )
        env = {
            "CHECK_DIR": str(directory),
            "CHECK_REDIS": f"redis://127.0.0.1:{port}/0",
            "PYTHONPATH": str(ROOT),
            "STASH_SOCKET_FILE": str(directory / "stash"),
            "DATA_DIR": str(directory / "data"),
        }
        server = GunicornServer(f"{_STASH}:application", directory, env)
        stack.enter_context(server).start()
        until((directory / "stash").exists, "the arbiter of the stash", 60)
        yield {**env, "CHECK_STASH": (directory / "stash").read_text()}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
