"""Asks every worker of this Gunicorn, from inside one of them, without a request to itself.

Each worker listens at a Unix socket of its own, `STATE_DIR/workers/<master>-<pid>-<token>.sock`,
with threads that serve nothing else. So the directory tells who there is, a page that asks all of
them holds no thread of any worker but its own, and however busy the requests' threads are, they
are not waited for: over HTTP, pages that wait for each other's workers could hold all of them.

Invariants: a socket's name is used once (the token), so that whoever finds it dead may remove it;
a child of a worker keeps no listening socket, or a dead worker would look as if it listened.
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

Question = dict[str, Any]
Answering = Callable[[Question], dict[str, Any]]

_MAX_BYTES = 256 * 1024
_AT_ONCE = 16  # questions that one worker answers at the same time; further ones wait
_LINE_S = 5.0  # for the few bytes of a question to come, or of an answer to go


@dataclass(frozen=True)
class Worker:
    """A worker that can be asked: where its socket is, and whose child it is."""

    master: int
    pid: int
    path: Path


@dataclass(frozen=True)
class Reply:
    """What came back: `body` is `None` when nothing did in time, `gone` when nobody listens."""

    worker: Worker
    body: dict[str, Any] | None
    gone: bool = False


class Attendance:
    """The socket of this process and the threads behind it; `close` ends it, a fork leaves it behind."""

    def __init__(self, answering: Answering) -> None:
        self.pid = os.getpid()
        directory = private_directory(_directory())
        name = f"{os.getppid()}-{self.pid}-{secrets.token_hex(4)}.sock"
        self._path = directory / name
        self._answering = answering
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(self._path) as address:
            self._listener.bind(address)
        self._listener.listen(64)
        threading.Thread(target=self._listen, name="roll-call", daemon=True).start()

    @property
    def can_be_found(self) -> bool:
        """Whether the socket still has its name: somebody may have removed the directory."""
        return self._path.exists()

    def close(self) -> None:
        """Be asked no more; a worker that is killed instead is found dead by who asks next."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def leave_to_parent(self) -> None:
        """Let go of the socket in a forked child, which has none of the threads."""
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._room.acquire()
            threading.Thread(
                target=self._answer, args=(line,), name="roll-call-answer", daemon=True
            ).start()

    def _answer(self, line: socket.socket) -> None:
        try:
            with line:
                line.settimeout(_LINE_S)
                question = json.loads(_read_line(line, _LINE_S))
                line.sendall(json.dumps(self._answering(question)).encode() + b"\n")
        except (OSError, ValueError) as exc:  # who asked went, or waited no longer
            logger.debug("roll call: a question was not answered: %s", exc)
        except Exception:
            logger.exception("roll call: a question was not answered")
        finally:
            self._room.release()
            close_caches()  # as after a request: this thread ends
            connections.close_all()


def workers() -> list[Worker]:
    """Return the workers of this process's Gunicorn that listen, or did when they were last heard."""
    found = [_worker(path) for path in _directory().glob("*.sock")]
    return sorted(
        (one for one in found if one and one.master == os.getppid()), key=lambda one: one.pid
    )


def ask(calls: Sequence[tuple[Worker, Question]], within_s: float) -> list[Reply]:
    """Ask all at the same time; return what each said, in that order, after `within_s` at most.

    A question is sent once. Without an answer, what was asked for may have been done.
    """
    deadline_s = clock.monotonic_s() + within_s
    with contextlib.ExitStack() as stack:
        lines = [_call(stack, worker, question) for worker, question in calls]
        return [
            Reply(worker, _hear(line, deadline_s), gone=line is None)
            for line, (worker, _) in zip(lines, calls, strict=True)
        ]


def _call(stack: contextlib.ExitStack, worker: Worker, question: Question) -> socket.socket | None:
    """Send the question; return the open line, or `None` and forget the worker if it is gone."""
    line = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    line.settimeout(_LINE_S)
    try:
        with _short(worker.path) as address:
            line.connect(address)
        line.sendall(json.dumps(question).encode() + b"\n")
    except (ConnectionError, FileNotFoundError):
        worker.path.unlink(missing_ok=True)
        return None
    except OSError as exc:
        logger.warning("roll call: worker %d: %s", worker.pid, exc)
    return line


def _hear(line: socket.socket | None, deadline_s: float) -> dict[str, Any] | None:
    if line is None:
        return None
    try:
        found = json.loads(_read_line(line, deadline_s - clock.monotonic_s()))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _read_line(line: socket.socket, within_s: float) -> bytes:
    deadline_s = clock.monotonic_s() + within_s
    data = b""
    while not data.endswith(b"\n"):
        line.settimeout(max(0.001, deadline_s - clock.monotonic_s()))
        part = line.recv(65536)
        data += part
        if not part or len(data) > _MAX_BYTES:
            raise ValueError(f"{len(data)} bytes and no end of the line")
    return data


def _directory() -> Path:
    return state_dir() / "workers"


def _worker(path: Path) -> Worker | None:
    master, _, rest = path.stem.partition("-")
    pid = rest.partition("-")[0]
    if not (master.isdigit() and pid.isdigit()):
        return None
    return Worker(int(master), int(pid), path)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield an address for the socket file: the kernel takes 107 bytes, and a path may be longer."""
    if not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
