"""Call every worker of this Gunicorn from inside one of them, without HTTP requests.

Each worker listens on a Unix socket of its own, `STATE_DIR/workers/<master>-<pid>-<token>.sock`,
with threads that serve nothing else. The directory lists the workers. A page that calls all of
them occupies no request thread but its own; over HTTP, pages that wait for each other's workers
could occupy all request threads and deadlock.

Invariants: the name of a socket is used once (the token), so a caller that finds it dead may remove
it; a child of a worker keeps no listening socket, or a dead worker would seem to listen.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.cache import close_caches
from django.db import connections

from cacheapp import clock
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import state_dir

logger = logging.getLogger(__name__)

Request = dict[str, Any]
Handler = Callable[[Request], dict[str, Any]]

_MAX_BYTES = 256 * 1024
_MAX_CONCURRENT = 16  # requests that one worker handles at a time; further ones wait
_IO_TIMEOUT_S = 5.0  # for the few bytes of a request or of a reply


@dataclass(frozen=True)
class Worker:
    """The address of a worker: its socket, its pid and its master's pid."""

    master: int
    pid: int
    path: Path


@dataclass(frozen=True)
class Reply:
    """The reply of a worker: `body` is `None` if none came in time, `gone` if it does not listen."""

    worker: Worker
    body: dict[str, Any] | None
    gone: bool = False


class RpcServer:
    """The listening socket of this process and its threads. A fork leaves them to the parent."""

    def __init__(self, handler: Handler) -> None:
        self.pid = os.getpid()
        directory = _directory()
        name = f"{os.getppid()}-{self.pid}-{secrets.token_hex(4)}.sock"
        self._path = directory / name
        self._handler = handler
        self._slots = threading.BoundedSemaphore(_MAX_CONCURRENT)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(self._path) as address:
            self._listener.bind(address)
        self._listener.listen(64)
        try:
            threading.Thread(target=self._listen, name="worker-rpc", daemon=True).start()
        except RuntimeError:
            self.close()  # callers would wait for replies from a socket that no thread serves
            raise

    @property
    def is_reachable(self) -> bool:
        """Whether the socket still has its name; its directory may have been removed."""
        return self._path.exists()

    def close(self) -> None:
        """Stop listening. The socket of a killed worker is removed by the next caller."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self._listener.close()

    def close_in_child(self) -> None:
        """Close the socket in a forked child, which has none of the threads."""
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._slots.acquire()
            try:
                threading.Thread(
                    target=self._serve, args=(connection,), name="worker-rpc-request", daemon=True
                ).start()
            except RuntimeError as exc:  # this caller gets no reply; later ones may
                logger.warning("worker RPC: a request was not answered: %s", exc)
                connection.close()
                self._slots.release()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(_IO_TIMEOUT_S)
                request = json.loads(_read_line(connection, _IO_TIMEOUT_S))
                connection.sendall(json.dumps(self._handler(request)).encode() + b"\n")
        except (OSError, ValueError) as exc:  # the caller left or timed out
            logger.debug("worker RPC: a request was not answered: %s", exc)
        except Exception:
            logger.exception("worker RPC: a request was not answered")
        finally:
            self._slots.release()
            close_caches()  # as after an HTTP request: this thread ends
            connections.close_all()


def workers() -> list[Worker]:
    """Return the workers of this process's Gunicorn that have a socket, by pid.

    Raises `StoreUnavailable` if another user could add a socket.
    """
    found = [_worker(path) for path in _directory().glob("*.sock")]
    return sorted(
        (one for one in found if one and one.master == os.getppid()), key=lambda one: one.pid
    )


def call(calls: Sequence[tuple[Worker, Request]], within_s: float) -> list[Reply]:
    """Send all requests at the same time; return the replies in that order.

    Takes `within_s` at most. A request is sent once; one without a reply may have been executed.
    """
    deadline_s = clock.monotonic_s() + within_s
    with contextlib.ExitStack() as stack:
        sent = [_send(stack, worker, request) for worker, request in calls]
        return [
            Reply(worker, _receive(connection, deadline_s), gone=connection is None)
            for connection, (worker, _) in zip(sent, calls, strict=True)
        ]


def _send(stack: contextlib.ExitStack, worker: Worker, request: Request) -> socket.socket | None:
    """Send a request; return the connection, or `None` after removing the socket of a dead worker."""
    connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    connection.settimeout(_IO_TIMEOUT_S)
    try:
        with _short(worker.path) as address:
            connection.connect(address)
    except (ConnectionError, FileNotFoundError):
        worker.path.unlink(missing_ok=True)
        return None
    except OSError as exc:
        logger.warning("worker RPC: worker %d: %s", worker.pid, exc)
        return connection
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
    except OSError as exc:  # it lives, and could not serve this connection
        logger.warning("worker RPC: worker %d: %s", worker.pid, exc)
    return connection


def _receive(connection: socket.socket | None, deadline_s: float) -> dict[str, Any] | None:
    if connection is None:
        return None
    try:
        found = json.loads(_read_line(connection, deadline_s - clock.monotonic_s()))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _read_line(connection: socket.socket, within_s: float) -> bytes:
    deadline_s = clock.monotonic_s() + within_s
    data = b""
    while not data.endswith(b"\n"):
        connection.settimeout(max(0.001, deadline_s - clock.monotonic_s()))
        part = connection.recv(65536)
        data += part
        if not part or len(data) > _MAX_BYTES:
            raise ValueError(f"{len(data)} bytes without an end of line")
    return data


def _directory() -> Path:
    return private_directory(state_dir() / "workers")


def _worker(path: Path) -> Worker | None:
    master, _, rest = path.stem.partition("-")
    pid = rest.partition("-")[0]
    if not (master.isdigit() and pid.isdigit()):
        return None
    return Worker(int(master), int(pid), path)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield an address for the socket; the kernel accepts 107 bytes, and a path may be longer."""
    if not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
