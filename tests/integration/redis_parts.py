"""What the tests of RedisCache are made of: a Redis of their own, and a wire that can be cut."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from cacheapp.backends import RedisCache
from cacheapp.lab.servers import RedisServer


def ours(url: str, prefix: str = "ours", **options: Any) -> RedisCache:
    """Return a RedisCache; equal options share one store, as aliases do."""
    return RedisCache(url, {"KEY_PREFIX": prefix, "OPTIONS": options})


def raw(server: RedisServer) -> redis.Redis:
    """Return a plain client of the server, for looking at what is really there."""
    return redis.Redis(unix_socket_path=str(server.socket))


def sent(server: RedisServer, work: Callable[[], Any]) -> list[str]:
    """Return the commands that clients sent to the server during `work`, in order."""
    names: list[str] = []
    with raw(server) as client, raw(server) as other:
        client.ping()  # now it is connected, and the monitor sees nothing of that
        with other.monitor() as monitor:
            work()
            client.echo("the end")
            for command in monitor.listen():
                if "the end" in command["command"]:
                    return names
                if command["client_type"] != "lua":
                    names.append(command["command"].split()[0].upper())
    raise AssertionError("the server ended")


class Wire:
    """A socket before a real Redis that passes everything on, until told what to lose.

    `_lock` guards `_sockets`. `lose_answers`: requests arrive, their answers do not, and the
    connection is cut. `lost` counts those answers.
    """

    def __init__(self, server: RedisServer, path: Path) -> None:
        self.url = f"unix://{path}?db=0"
        self.lose_answers = threading.Event()
        self.lost = 0
        self._target = str(server.socket)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs, _ = self._listener.accept()
                ours = socket.socket(socket.AF_UNIX)
                ours.connect(self._target)
                with self._lock:
                    self._sockets |= {theirs, ours}
                for work, source, target in (
                    (self._requests, theirs, ours),
                    (self._answers, ours, theirs),
                ):
                    thread = threading.Thread(target=work, args=(source, target))
                    thread.start()
                    self._threads.append(thread)

    def _requests(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        _cut(source, target)

    def _answers(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.lose_answers.is_set():
                    self.lost += 1
                    break
                target.sendall(data)
        _cut(source, target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _cut(self._listener)
        with self._lock:
            _cut(*self._sockets)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        for each in self._sockets:
            each.close()


def _cut(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
